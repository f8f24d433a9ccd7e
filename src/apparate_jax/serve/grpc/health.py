"""``grpc.health.v1`` over a served model: what load balancers and orchestrators ask.

Sharp edge: readiness has no event to wait for; those who watch hear of a change within
:data:`PERIOD_S`, and those who check have the truth.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

PERIOD_S = 1.0

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """Health of services that are ready together."""

    def __init__(self, services: Collection[str], ready: Callable[[], bool]) -> None:
        """Make the service.

        Args:
            services: Names that are known; the empty one stands for the server.
            ready: Whether requests are taken and answered.
        """
        self._services = frozenset(services)
        self._ready = ready
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Not serving from here on; tells those who watch, and ends their streams."""
        self._closing.set()

    def _status(self, service: str) -> Any:
        if service not in self._services:
            return _Response.SERVICE_UNKNOWN
        ready = self._ready() and not self._closing.is_set()
        return _Response.SERVING if ready else _Response.NOT_SERVING

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Any:
        """The status of a service now; NOT_FOUND for one that is unknown."""
        status = self._status(request.service)
        if status == _Response.SERVICE_UNKNOWN:
            known = ", ".join(sorted(map(repr, self._services)))
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"service {request.service!r} is unknown: expected one of {known}",
            )
        return _Response(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """The status of a service now and whenever it changes."""
        last = None
        while True:
            closing = self._closing.is_set()
            status = self._status(request.service)
            if status != last:
                await context.write(_Response(status=status))
                last = status
            if closing:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._closing.wait()
