"""The service on a port, with health and reflection.

Sharp edge: a port is taken from :func:`~apparate_jax.serve.listen.open_socket` but gRPC binds it
itself: it is free for the moment between. Whoever takes it then causes the same clear error.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from apparate_jax.errors import ConfigError
from apparate_jax.serve.access import ApiKeys, Tls
from apparate_jax.serve.grpc import inference_pb2
from apparate_jax.serve.grpc.access import RequireKey
from apparate_jax.serve.grpc.calls import Calls
from apparate_jax.serve.grpc.health import Health
from apparate_jax.serve.grpc.limits import GrpcLimits
from apparate_jax.serve.grpc.service import SERVICE, Service
from apparate_jax.serve.inference import Models
from apparate_jax.serve.listen import address_of
from apparate_jax.serve.running import DRAIN_TIMEOUT_S, run_frontends

_COMPRESSIONS = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}
PING_EVERY_MS = 60_000
PING_TIMEOUT_MS = 20_000
CLIENTS_PING_EVERY_MS = 5_000
"""How often clients may ping, with or without a call under way."""
HOLD_S = 0.1
"""How long calls that come at the end are held: who asks again and again waits by then."""
GIVE_UP_S = 1.0
"""How long it may take to tell those who are given up."""


class GrpcServer:
    """Models' service on a port. :meth:`run` it, :meth:`stop` it from any thread."""

    def __init__(
        self,
        models: Models,
        sock: socket.socket,
        *,
        limits: GrpcLimits | None = None,
        model_control: bool = True,
        keys: ApiKeys | None = None,
        tls: Tls | None = None,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            models: What is served.
            sock: A bound socket, from :func:`~apparate_jax.serve.listen.open_socket`; its place is
                taken when the server starts.
            limits: Bounds on requests; the defaults of :class:`GrpcLimits` unless given.
            model_control: Whether clients may load and unload models.
            keys: Who may ask; everybody if None.
            tls: Certificates; plain connections if None.
            drain_timeout_s: How long requests under way may take once the server is to end.
            on_ready: Called with the server's URL once it takes requests.

        Raises:
            ConfigError: The certificates cannot be used.
        """
        self._limits = limits or GrpcLimits()
        self._models = models
        self._model_control = model_control
        self._keys = keys
        self._credentials = None if tls is None else tls.grpc_credentials()
        self._sock = sock
        self._address = address_of(sock)
        self._drain_timeout_s = drain_timeout_s
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._now = asyncio.Event()
        self.unanswered = 0
        self.url = f"grpc{'' if tls is None else 's'}://{self._address}"

    def run(self) -> None:
        """Serve until a signal comes or :meth:`stop` is called, and requests are answered.

        Raises:
            ConfigError: If another process has taken the port.
        """
        run_frontends([self])

    async def serve(self, on_started: Callable[[], None]) -> None:
        """Serve on the running loop; see :class:`~apparate_jax.serve.running.Frontend`.

        Raises:
            ConfigError: If another process has taken the port.
        """
        self._loop = asyncio.get_running_loop()
        service = Service(self._models, self._limits, model_control=self._model_control)
        health = Health(("", SERVICE.full_name), lambda: self._models.ready)
        server = self._made(service, health)
        self._bind(server)
        await server.start()
        on_started()
        if self._on_ready is not None:
            self._on_ready(self.url)
        await self._stopping.wait()
        health.close()
        await self._drain(server, service.calls)

    async def _drain(self, server: grpc.aio.Server, calls: Calls) -> None:
        """End the server once everything under way is answered, or given up."""
        now = asyncio.create_task(self._now.wait())
        calls.close()
        await asyncio.wait([now], timeout=HOLD_S)
        draining = asyncio.create_task(server.stop(self._drain_timeout_s + GIVE_UP_S))
        await asyncio.sleep(HOLD_S / 10)
        calls.refuse_held()
        await asyncio.wait(
            [draining, now], timeout=self._drain_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        now.cancel()
        calls.give_up()
        await asyncio.wait([draining], timeout=GIVE_UP_S)
        self.unanswered = calls.unanswered
        await server.stop(None)

    def stop(self, *, now: bool = False) -> None:
        """Take no more requests, answer those under way (unless ``now``), and end."""
        events = [self._stopping, *([self._now] if now else [])]
        for event in events:
            if self._loop is None or self._loop.is_closed():
                event.set()
            else:
                self._loop.call_soon_threadsafe(event.set)

    def _made(self, service: Service, health: Health) -> grpc.aio.Server:
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._limits.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Two servers on one port would each get some of the connections.
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", PING_EVERY_MS),
                ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", CLIENTS_PING_EVERY_MS),
            ],
            compression=_COMPRESSIONS[self._limits.compression],
            interceptors=() if self._keys is None else (RequireKey(self._keys),),
        )
        server.add_generic_rpc_handlers((service.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        _reflect(server)
        return server

    def _bind(self, server: grpc.aio.Server) -> None:
        self._sock.close()
        try:
            if self._credentials is None:
                server.add_insecure_port(self._address)
            else:
                server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            host, _, port = self._address.rpartition(":")
            raise ConfigError(
                f"port {port} of {host} was taken by another process: stop it, or choose another "
                "port"
            ) from error


def _reflect(server: grpc.aio.Server) -> None:
    """Let tools ask the server what it offers."""
    pool: Any = inference_pb2.DESCRIPTOR.pool
    for described in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(described.serialized_pb)
    names = (
        SERVICE.full_name,
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
        reflection.SERVICE_NAME,
    )
    reflection.enable_server_reflection(names, server, pool=pool)
