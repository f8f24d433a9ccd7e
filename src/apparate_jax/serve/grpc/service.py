"""The calls of ``inference.GRPCInferenceService`` over served models."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from apparate_jax.serve.grpc import inference_pb2 as pb
from apparate_jax.serve.grpc.calls import CLOSING, Calls
from apparate_jax.serve.grpc.encoding import decode_request, encode_reply
from apparate_jax.serve.grpc.errors import refuse
from apparate_jax.serve.grpc.limits import GrpcLimits
from apparate_jax.serve.grpc.stream import answer_stream
from apparate_jax.serve.inference import (
    Models,
    check_control,
    now_s,
    server_metadata,
    statistics_of,
)

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]

Handler = Callable[[Any, Any], Awaitable[Any]]


class Service:
    """The service over models.

    Attributes:
        calls: Those under way.
    """

    def __init__(self, models: Models, limits: GrpcLimits, *, model_control: bool = True) -> None:
        """Make the service.

        Args:
            models: What is served.
            limits: Bounds on requests.
            model_control: Whether clients may load and unload models.
        """
        self._models = models
        self._limits = limits
        self._model_control = model_control
        self.calls = Calls()
        self._handlers: dict[str, Handler] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_model_load,
            "RepositoryModelUnload": self._repository_model_unload,
        }

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service as gRPC's server takes it."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in SERVICE.methods:
            read = getattr(pb, method.input_type.name).FromString
            write = getattr(pb, method.output_type.name).SerializeToString
            methods[method.name] = (
                grpc.stream_stream_rpc_method_handler(self._model_stream_infer, read, write)
                if method.client_streaming
                else grpc.unary_unary_rpc_method_handler(
                    self._refusing(self._handlers[method.name]), read, write
                )
            )
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)

    def _refusing(self, call: Handler) -> Handler:
        """The call, whose errors become statuses."""

        async def refusing(request: Any, context: Any) -> Any:
            async with self.calls.one(context):
                try:
                    with self.calls.request():
                        return await call(request, context)
                except Exception as error:
                    await refuse(context, error, self._limits.retry_after_s)

        return refusing

    async def _server_live(self, request: pb.ServerLiveRequest, _: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, request: pb.ServerReadyRequest, _: Any) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._models.ready)

    async def _model_ready(self, request: pb.ModelReadyRequest, _: Any) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._models.served(request.name, request.version).ready)

    async def _server_metadata(
        self, request: pb.ServerMetadataRequest, _: Any
    ) -> pb.ServerMetadataResponse:
        return ParseDict(server_metadata(), pb.ServerMetadataResponse())

    async def _model_metadata(
        self, request: pb.ModelMetadataRequest, _: Any
    ) -> pb.ModelMetadataResponse:
        served = self._models.served(request.name, request.version)
        return ParseDict(served.metadata, pb.ModelMetadataResponse())

    async def _model_config(self, request: pb.ModelConfigRequest, _: Any) -> pb.ModelConfigResponse:
        served = self._models.served(request.name, request.version)
        return ParseDict({"config": served.config}, pb.ModelConfigResponse())

    async def _repository_index(
        self, request: pb.RepositoryIndexRequest, _: Any
    ) -> pb.RepositoryIndexResponse:
        found = self._models.index()
        models = [one for one in found if one["state"] == "READY" or not request.ready]
        return ParseDict({"models": models}, pb.RepositoryIndexResponse())

    async def _model_infer(
        self, message: pb.ModelInferRequest, context: Any
    ) -> pb.ModelInferResponse:
        arrived_s = now_s()
        left_s = context.time_remaining()
        deadline_s = math.inf if left_s is None else arrived_s + left_s
        with self._models.lease(message.model_name, message.model_version) as served:
            served.check_ready()
            request = decode_request(message)
            reply = await served.reply(request, arrived_s, deadline_s, trace_headers(context))
            return encode_reply(reply, served.name, served.version, message.id)

    async def _model_stream_infer(
        self, messages: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> None:
        async with self.calls.one(context):
            ended = await answer_stream(
                self._models,
                messages,
                context.write,
                self.calls,
                self._limits.max_streamed,
                trace_headers(context),
            )
            if not ended:  # there may be requests that were not read
                await context.abort(grpc.StatusCode.UNAVAILABLE, CLOSING)

    async def _model_statistics(
        self, request: pb.ModelStatisticsRequest, _: Any
    ) -> pb.ModelStatisticsResponse:
        found = statistics_of(self._models, request.name, request.version)
        return ParseDict(found, pb.ModelStatisticsResponse())

    async def _repository_model_load(
        self, request: pb.RepositoryModelLoadRequest, _: Any
    ) -> pb.RepositoryModelLoadResponse:
        check_control(self._model_control)
        await asyncio.to_thread(self._models.load, request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def _repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest, _: Any
    ) -> pb.RepositoryModelUnloadResponse:
        check_control(self._model_control)
        await asyncio.to_thread(self._models.unload, request.model_name)
        return pb.RepositoryModelUnloadResponse()


def trace_headers(context: Any) -> dict[str, str]:
    """The metadata of W3C Trace Context, where a client sends it."""
    metadata = context.invocation_metadata() or ()
    return {name: value for name, value in metadata if name in ("traceparent", "tracestate")}
