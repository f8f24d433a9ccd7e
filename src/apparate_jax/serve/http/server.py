"""The application on a port.

The port is taken before anything is said to be ready, so that a port in use is one clear error.
On SIGINT or SIGTERM no further connection is taken, requests under way are answered, then
:func:`serve_http` returns: the engine behind it is the caller's to close.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from apparate_jax.serve.access import Tls
from apparate_jax.serve.http.connection import Connection
from apparate_jax.serve.http.errors import error_response
from apparate_jax.serve.inference import Kind, Refusal
from apparate_jax.serve.listen import address_of, cannot_take, open_socket
from apparate_jax.serve.running import DRAIN_TIMEOUT_S, run_frontends

KEEP_ALIVE_S = 75
BACKLOG = 2048
GIVE_UP_S = 1.0
"""How long it may take to tell those who are given up."""


class HttpServer:
    """An application on a port. :meth:`run` it, :meth:`stop` it from any thread."""

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        *,
        drain_timeout_s: int = DRAIN_TIMEOUT_S,
        on_ready: Callable[[str], None] | None = None,
        tls: Tls | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            app: The application.
            sock: A bound socket, from :func:`open_socket`; closed when the server ends.
            drain_timeout_s: How long requests under way may take once the server is to end.
            on_ready: Called with the server's URL once it takes requests.
            tls: Certificates; plain connections if None.

        Raises:
            ConfigError: The certificates cannot be used.
        """
        self._sock = sock
        self._on_ready = on_ready
        self._server = _Server(
            uvicorn.Config(
                _Ending(app),
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=drain_timeout_s,
            )
        )
        if tls is not None:
            self._server.config.load()
            self._server.config.ssl = tls.context()
        self.url = f"http{'' if tls is None else 's'}://{address_of(sock)}"

    def run(self) -> None:
        """Serve until a signal comes or :meth:`stop` is called, and requests are answered.

        Raises:
            ConfigError: If another process has begun to listen on the port.
        """
        run_frontends([self])

    async def serve(self, on_started: Callable[[], None]) -> None:
        """Serve on the running loop; see :class:`~apparate_jax.serve.running.Frontend`.

        Raises:
            ConfigError: If another process has begun to listen on the port.
        """
        with self._sock:
            try:
                self._sock.listen(BACKLOG)
            except OSError as error:
                host, port = self._sock.getsockname()[:2]
                raise cannot_take(host, port, error) from error

            def tell() -> None:
                on_started()
                if self._on_ready is not None:
                    self._on_ready(self.url)

            self._server.on_started = tell
            await self._server.serve(sockets=[self._sock])

    @property
    def unanswered(self) -> int:
        """Requests that were under way when it had to end."""
        return self._server.unanswered

    def stop(self, *, now: bool = False) -> None:
        """Take no more requests, answer those under way (unless ``now``), and end."""
        self._server.should_exit = True
        self._server.force_exit = self._server.force_exit or now


def serve_http(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    drain_timeout_s: int = DRAIN_TIMEOUT_S,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then answer what is under way and return.

    Args:
        app: From :func:`~apparate_jax.serve.http.build_app`.
        host: Name or address to bind to.
        port: 0 lets the system choose; ``on_ready`` is told.
        drain_timeout_s: How long requests under way may take at the end.
        on_ready: Called with the server's URL once it takes requests.

    Raises:
        ConfigError: If the port is in use or cannot be taken, or the host is unknown.
    """
    sock = open_socket(host, port)
    HttpServer(app, sock, drain_timeout_s=drain_timeout_s, on_ready=on_ready).run()


class _Ending:
    """An application whose requests are refused where the server gives them up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            why = "the server closed before this was answered: ask another one, or again later"
            response = error_response(Refusal(Kind.UNAVAILABLE, why), 0)
            with contextlib.suppress(RuntimeError):  # where a part of the answer is out already
                await response(scope, receive, send)


class _Server(uvicorn.Server):
    """Uvicorn's server, which tells when it has started and leaves signals to others.

    Attributes:
        on_started: Called then.
        unanswered: Requests that were under way when it had to end.
    """

    on_started: Callable[[], None]
    unanswered = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if left := list(self.server_state.tasks):
            self.unanswered = len(left)
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=GIVE_UP_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn's own raises the signal again at the end, which would kill the process before
        # the engine is closed.
        yield
