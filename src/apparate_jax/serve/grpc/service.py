"""The calls of ``inference.GRPCInferenceService`` over a served model."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from apparate_jax.serve.grpc import inference_pb2 as pb
from apparate_jax.serve.grpc.encoding import decode_request, encode_reply
from apparate_jax.serve.grpc.errors import refuse
from apparate_jax.serve.grpc.limits import GrpcLimits
from apparate_jax.serve.grpc.stream import answer_stream
from apparate_jax.serve.inference import Kind, Refusal, Served, now_s, server_metadata

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]

Context = "grpc.aio.ServicerContext[Any, Any]"
Handler = Callable[[Any, Any], Awaitable[Any]]


class Service:
    """The service of one model."""

    def __init__(self, served: Served, limits: GrpcLimits) -> None:
        """Make the service.

        Args:
            served: The model.
            limits: Bounds on requests.
        """
        self._served = served
        self._limits = limits
        self._closing = asyncio.Event()
        self._calls: dict[str, Handler] = {
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

    def close(self) -> None:
        """Read no further requests from streams; those that were read are answered."""
        self._closing.set()

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
                    self._refusing(self._calls[method.name]), read, write
                )
            )
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)

    def _refusing(self, call: Handler) -> Handler:
        """The call, whose errors become statuses."""

        async def refusing(request: Any, context: Any) -> Any:
            try:
                return await call(request, context)
            except Exception as error:
                await refuse(context, error, self._limits.retry_after_s)

        return refusing

    async def _server_live(self, request: pb.ServerLiveRequest, _: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, request: pb.ServerReadyRequest, _: Any) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._served.ready)

    async def _model_ready(self, request: pb.ModelReadyRequest, _: Any) -> pb.ModelReadyResponse:
        self._served.check(request.name, request.version)
        return pb.ModelReadyResponse(ready=self._served.ready)

    async def _server_metadata(
        self, request: pb.ServerMetadataRequest, _: Any
    ) -> pb.ServerMetadataResponse:
        return ParseDict(server_metadata(), pb.ServerMetadataResponse())

    async def _model_metadata(
        self, request: pb.ModelMetadataRequest, _: Any
    ) -> pb.ModelMetadataResponse:
        self._served.check(request.name, request.version)
        return ParseDict(self._served.metadata, pb.ModelMetadataResponse())

    async def _model_config(self, request: pb.ModelConfigRequest, _: Any) -> pb.ModelConfigResponse:
        self._served.check(request.name, request.version)
        return ParseDict({"config": self._served.config}, pb.ModelConfigResponse())

    async def _repository_index(
        self, request: pb.RepositoryIndexRequest, _: Any
    ) -> pb.RepositoryIndexResponse:
        listed = self._served.ready or not request.ready
        models = [self._served.index_entry()] if listed else []
        return ParseDict({"models": models}, pb.RepositoryIndexResponse())

    async def _model_infer(
        self, message: pb.ModelInferRequest, context: Any
    ) -> pb.ModelInferResponse:
        arrived_s = now_s()
        served = self._served
        served.check(message.model_name, message.model_version)
        served.check_ready()
        left_s = context.time_remaining()
        deadline_s = math.inf if left_s is None else arrived_s + left_s
        reply = await served.reply(decode_request(message), arrived_s, deadline_s)
        return encode_reply(reply, served.name, served.version, message.id)

    async def _model_stream_infer(
        self, messages: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> None:
        await answer_stream(
            self._served, messages, context.write, self._closing, self._limits.max_streamed
        )

    async def _model_statistics(self, request: pb.ModelStatisticsRequest, _: Any) -> None:
        raise Refusal(Kind.UNSUPPORTED, "statistics are not kept by this server")

    async def _repository_model_load(self, request: pb.RepositoryModelLoadRequest, _: Any) -> None:
        raise self._fixed("loaded")

    async def _repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest, _: Any
    ) -> None:
        raise self._fixed("unloaded")

    def _fixed(self, what: str) -> Refusal:
        return Refusal(
            Kind.UNSUPPORTED,
            f"models are not {what} while this server runs: it serves {self._served.name!r}, which "
            "it was started with",
        )
