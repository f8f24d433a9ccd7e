"""Running the application: the port, signals, and an end that loses no request.

The port is taken before anything is said to be ready, so that a port in use is one clear error.
On SIGINT or SIGTERM no further connection is taken, requests under way are answered, then
:func:`serve_http` returns: the engine behind it is the caller's to close.

Sharp edge: signals are caught only where the server runs in the main thread; elsewhere
:meth:`HttpServer.stop` ends it. A second SIGINT ends it at once.
"""

import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from apparate_jax.errors import ConfigError

KEEP_ALIVE_S = 75
BACKLOG = 2048
_CAUSES = {
    errno.EADDRINUSE: "is in use: stop what listens there, or choose another port",
    errno.EACCES: "may not be taken by this user: choose a port of 1024 or above",
    errno.EADDRNOTAVAIL: "is not on this machine: choose one of its own addresses as host",
}


def open_socket(host: str, port: int) -> socket.socket:
    """Take a port, without listening yet.

    Args:
        host: Name or address to bind to, IPv4 or IPv6.
        port: 0 lets the system choose.

    Raises:
        ConfigError: If the port is in use or cannot be taken, or the host is unknown.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"the port is {port}, expected 0..65535 (0 chooses a free one)")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"host {host!r} is unknown: {error.strerror}") from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _cannot_take(host, port, error) from error
    return sock


def _cannot_take(host: str, port: int, error: OSError) -> ConfigError:
    cause = _CAUSES.get(error.errno or 0, f"cannot be taken: {error.strerror}")
    return ConfigError(f"port {port} of {host} {cause}")


class HttpServer:
    """An application on a port. :meth:`run` it, :meth:`stop` it from any thread."""

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        *,
        drain_timeout_s: int = 30,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            app: The application.
            sock: A bound socket, from :func:`open_socket`; closed when the server ends.
            drain_timeout_s: How long requests under way may take once the server is to end.
            on_ready: Called with the server's URL once it takes requests.
        """
        self._sock = sock
        self._server = _Server(
            uvicorn.Config(
                app,
                http="httptools",
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
            ),
            on_started=lambda: on_ready(self.url) if on_ready is not None else None,
        )
        self.url = _url(sock)

    def run(self) -> None:
        """Serve until a signal comes or :meth:`stop` is called, and requests are answered.

        Raises:
            ConfigError: If another process has begun to listen on the port.
        """
        with self._sock:
            try:
                self._sock.listen(BACKLOG)
            except OSError as error:
                host, port = self._sock.getsockname()[:2]
                raise _cannot_take(host, port, error) from error
            self._server.run(sockets=[self._sock])

    def stop(self) -> None:
        """Take no more requests, answer those under way, and let :meth:`run` return."""
        self._server.should_exit = True


def serve_http(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    drain_timeout_s: int = 30,
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


class _Server(uvicorn.Server):
    """Uvicorn's server, which tells when it has started and returns after a signal."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn's own raises the signal again at the end, which would kill the process before
        # the engine is closed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"
