"""A server from its settings: ports, models, frontends, signals, and an end that loses nothing.

Ports are taken first, then models are brought up, then frontends begin: whoever can connect is
answered. SIGHUP loads what changed on disk; SIGTERM and SIGINT end the server once everything under
way is answered.
"""

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apparate_jax.errors import ApparateError, ConfigError
from apparate_jax.serve.access import Tls, read_keys
from apparate_jax.serve.cores import pin_pool
from apparate_jax.serve.grpc import GrpcLimits, GrpcServer
from apparate_jax.serve.http import HttpServer, build_app
from apparate_jax.serve.inference import now_s
from apparate_jax.serve.listen import open_socket
from apparate_jax.serve.repository import Abandoned, Repository
from apparate_jax.serve.running import Frontend, run_frontends
from apparate_jax.serve.service import OnPhase
from apparate_jax.serve.settings import Port, ServerSettings
from apparate_jax.serve.telemetry import server_status

if TYPE_CHECKING:
    from apparate_jax.serve.telemetry.spans import Spans

logger = logging.getLogger(__name__)

ABANDON_S = 10.0
"""How long a reload may take to notice that the server ends; its thread is left behind then."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that takes requests.

    Attributes:
        http: URL of the HTTP frontend, None where there is none.
        grpc: URL of the gRPC frontend, None where there is none.
        models: Names of the models.
        status: ``status(history) -> ...``: what ``GET /apparate/status`` answers.
    """

    http: str | None
    grpc: str | None
    models: tuple[str, ...]
    status: Callable[[int], dict[str, Any]]


class Server:
    """Models on ports. Enter it, :meth:`load`, :meth:`run`; leaving it ends the models."""

    def __init__(self, settings: ServerSettings) -> None:
        """Take the ports; nothing is read or compiled yet.

        Args:
            settings: Everything that there is to say.

        Raises:
            ConfigError: A port is taken, nothing is to be served, or a setting does not fit.
        """
        configs = settings.model_configs()
        if not configs:
            raise ConfigError(
                "no model is named: give a checkpoint, or [models.NAME] in --config FILE"
            )
        if settings.http_port == settings.grpc_port == "off":
            raise ConfigError("http_port and grpc_port are both off: nothing would be served")
        self._pin_cores = settings.pin_cores
        self._repository = Repository(
            configs,
            state_dir=settings.state_dir,
            drain_s=settings.drain_timeout_s,
            spans=_spans(settings),
        )
        with contextlib.ExitStack() as ends:
            ends.callback(self._repository.close)
            http = _socket(settings.host, settings.http_port, ends)
            grpc = _socket(settings.host, settings.grpc_port, ends)
            self._http, self._grpc = _frontends(settings, self._repository, http, grpc)
            self._ends = ends.pop_all()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def load(self, progress: OnPhase | None = None) -> None:
        """Bring every model up.

        Args:
            progress: ``progress(phase)`` gives the callback for each phase.

        Raises:
            CheckpointError: A model cannot be served.
            ConfigError: It does not fit its settings, or cores cannot be pinned here.
        """
        if self._pin_cores:
            pin_pool()
        for name in self._repository.names:
            self._repository.load(name, progress)
        self._repository.freeze()

    def run(self, on_ready: Callable[[Running], None] | None = None) -> int:
        """Serve until SIGINT or SIGTERM, then answer what is under way and return.

        Args:
            on_ready: Called once, when requests are taken.

        Returns:
            How many requests had to be left unanswered: they took longer than
            ``drain_timeout_s``, or a second SIGINT came.
        """
        begun, repository = now_s(), self._repository

        def status(history: int) -> dict[str, Any]:
            counts, index = repository.statistics(), repository.index()
            return server_status(counts, now_s(), started_s=begun, index=index, history=history)

        frontends = [one for one in (self._http, self._grpc) if one is not None]
        running = Running(
            None if self._http is None else self._http.url,
            None if self._grpc is None else self._grpc.url,
            repository.names,
            status,
        )
        with _reloading(repository):
            ready = None if on_ready is None else lambda: on_ready(running)
            return run_frontends(frontends, ready, repository.abandon)


def _spans(settings: ServerSettings) -> "Spans | None":
    if settings.otlp_endpoint is None:
        return None
    from apparate_jax.serve.telemetry.spans import spans_to

    return spans_to(settings.otlp_endpoint, settings.trace_frac)


def _socket(host: str, port: Port, ends: contextlib.ExitStack) -> socket.socket | None:
    return None if port == "off" else ends.enter_context(open_socket(host, port))


def _frontends(
    settings: ServerSettings,
    models: Repository,
    http: socket.socket | None,
    grpc: socket.socket | None,
) -> tuple[Frontend | None, Frontend | None]:
    keys = None if settings.api_keys_file is None else read_keys(settings.api_keys_file)
    given = settings.tls
    tls = None if given is None else Tls(given.cert, given.key, given.client_ca)
    limits, drain_s = settings.http_limits(), settings.drain_timeout_s
    made: list[Frontend | None] = [None, None]
    if http is not None:
        app = build_app(models, limits=limits, model_control=settings.model_control, keys=keys)
        made[0] = HttpServer(app, http, drain_timeout_s=round(drain_s), tls=tls)
    if grpc is not None:
        bounds = GrpcLimits(
            max_message_bytes=limits.max_body_bytes, retry_after_s=limits.retry_after_s
        )
        made[1] = GrpcServer(
            models,
            grpc,
            limits=bounds,
            model_control=settings.model_control,
            keys=keys,
            tls=tls,
            drain_timeout_s=drain_s,
        )
    return made[0], made[1]


@contextlib.contextmanager
def _reloading(repository: Repository) -> Iterator[None]:
    """Load what changed on disk when SIGHUP comes, one load after the other."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        yield
        return
    asked, ended = threading.Event(), threading.Event()

    def reload() -> None:
        while asked.wait() and not ended.is_set():
            asked.clear()
            for name in repository.names:
                try:
                    repository.load(name)
                except Abandoned as error:
                    logger.info("model %r: %s", name, error)
                except (ApparateError, OSError) as error:
                    logger.error("model %r was not reloaded, what it was goes on: %s", name, error)
                except Exception:  # the next signal is to find somebody who listens
                    logger.exception("model %r was not reloaded, what it was goes on", name)

    thread = threading.Thread(target=reload, name="apparate-reload", daemon=True)
    thread.start()
    before = signal.signal(signal.SIGHUP, lambda *_: asked.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
        ended.set()
        repository.abandon()
        asked.set()
        thread.join(ABANDON_S)
