"""API keys over gRPC: everything but health needs one, where there are any."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from apparate_jax.serve.access import ApiKeys

OPEN = (
    "/grpc.health.v1.Health/",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
"""Methods that whoever watches the server may call without a key."""


if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:  # generic for type checkers only
    Handler = grpc.RpcMethodHandler


class RequireKey(grpc.aio.ServerInterceptor):
    """Ends calls of whoever has no key as ``UNAUTHENTICATED``."""

    def __init__(self, keys: ApiKeys) -> None:
        """Guard a server.

        Args:
            keys: That may ask.
        """
        self._keys = keys

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Pass a call on, or refuse it."""
        handler = await continuation(handler_call_details)
        if handler_call_details.method.startswith(OPEN) or handler is None:
            return handler
        given = dict(handler_call_details.invocation_metadata or ())
        found = [given.get(name) for name in ("authorization", "x-api-key")]
        if self._keys.allow(*(None if isinstance(text, bytes) else text for text in found)):
            return handler
        return _refusing(handler)


def _refusing(handler: Handler) -> Handler:
    """A handler of the same kind of call, which ends it."""

    async def refuse(request: Any, context: Any) -> None:
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "no valid API key: send one as metadata 'authorization: Bearer KEY' or 'x-api-key'",
        )

    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    made: Handler = make(refuse, handler.request_deserializer, handler.response_serializer)
    return made
