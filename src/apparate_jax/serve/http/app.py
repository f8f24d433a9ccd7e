"""The application: endpoints of the protocol's REST core over anything that answers.

The infer endpoint speaks ASGI directly and has nothing between it and the engine but the parser:
the path is a few hundred microseconds, the model is what takes time.
"""

import asyncio
import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from apparate_jax.errors import ApparateError, ConfigError, RequestError
from apparate_jax.serve.http.answers import Answering, answer_rows
from apparate_jax.serve.http.body import (
    ClientGoneError,
    Headers,
    accepted_coding,
    compress,
    read_body,
)
from apparate_jax.serve.http.errors import (
    Refusal,
    error_response,
    failure_response,
    on_http_exception,
)
from apparate_jax.serve.http.limits import HttpLimits
from apparate_jax.serve.http.outputs import options_of, output_tensors, response_parameters
from apparate_jax.serve.protocol import (
    check_against,
    datatype_of,
    encode_infer_response,
    parse_infer_request,
)

SERVER_NAME = "apparate-jax"
EXTENSIONS = ("binary_tensor_data", "parameters")
PLATFORM = "jax_jaxpr"
_LOG = logging.getLogger(__name__)
_HEADER_LENGTH = "Inference-Header-Content-Length"


def build_app(
    engine: Answering,
    *,
    model_name: str,
    model_version: str = "1",
    limits: HttpLimits | None = None,
) -> Starlette:
    """Make the application that serves one model.

    Responses hold the outputs ``logits`` and ``label``, and on request ``exit``, ``exit_depth`` and
    ``error``; for a request of one row the last three are response parameters as well (see
    :mod:`apparate_jax.serve.http.outputs`).

    Args:
        engine: Answers single examples.
        model_name: Under which clients address the model.
        model_version: The one version that there is.
        limits: Bounds on requests; the defaults of :class:`HttpLimits` unless given.

    Raises:
        ConfigError: If a name cannot be part of a path, or the model's inputs are unknown or have
            no datatype of the protocol.
    """
    for what, value in (("model name", model_name), ("model version", model_version)):
        if not value or "/" in value:
            raise ConfigError(f"the {what} is {value!r}, expected a name without '/'")
    served = _Served(engine, model_name, model_version, limits or HttpLimits())
    infer = _Infer(served)
    model = "/v2/models/{model}"
    versioned = model + "/versions/{version}"
    # The path that matters comes first: routes are tried in order.
    routes = [
        Route(f"{model}/infer", infer, methods=["POST"]),
        Route(f"{versioned}/infer", infer, methods=["POST"]),
        Route("/v2/health/live", served.live),
        Route("/v2/health/ready", served.ready),
        Route(f"{model}/ready", served.model_ready),
        Route(f"{versioned}/ready", served.model_ready),
        Route(model, served.model_metadata),
        Route(versioned, served.model_metadata),
        Route("/v2", served.metadata),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: on_http_exception})


class _Served:
    """The model under its name, and the endpoints that tell of it."""

    def __init__(self, engine: Answering, name: str, version: str, limits: HttpLimits) -> None:
        if not engine.model.inputs:
            raise ConfigError(
                f"the inputs of {engine.model.name!r} are not described: give inputs= where the "
                "model is made"
            )
        self.engine = engine
        self.name = name
        self.version = version
        self.limits = limits
        self.model_info = self._model_info()

    def _model_info(self) -> dict[str, Any]:
        def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
            return {"name": name, "datatype": datatype, "shape": [-1, *shape]}

        return {
            "name": self.name,
            "versions": [self.version],
            "platform": PLATFORM,
            "inputs": [
                tensor(spec.name, datatype_of(spec.dtype), *spec.shape)
                for spec in self.engine.model.inputs
            ],
            "outputs": [
                tensor("logits", "FP32", self.engine.num_classes),
                tensor("label", "INT64"),
            ],
        }

    def check(self, path: Mapping[str, str]) -> None:
        """Refuse a path that names another model or version."""
        model, wanted = path["model"], path.get("version", self.version)
        if model != self.name:
            raise Refusal(404, f"model {model!r} is unknown: {self.name!r} is served here")
        if wanted != self.version:
            raise Refusal(
                404, f"model {model!r} has no version {wanted!r}: it has {self.version!r}"
            )

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self.engine.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        info = {"name": SERVER_NAME, "version": version(SERVER_NAME), "extensions": EXTENSIONS}
        return JSONResponse(info)

    async def model_ready(self, request: Request) -> Response:
        try:
            self.check(request.path_params)
        except Refusal as error:
            return error_response(error, self.limits.retry_after_s)
        ready = self.engine.ready
        return JSONResponse({"name": self.name, "ready": ready}, 200 if ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        try:
            self.check(request.path_params)
        except Refusal as error:
            return error_response(error, self.limits.retry_after_s)
        return JSONResponse(self.model_info)


class _Infer:
    """The infer endpoint, as an ASGI application."""

    def __init__(self, served: _Served) -> None:
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = dict(scope["headers"])
        try:
            self._served.check(scope["path_params"])
            response = await self._answer(receive, headers)
        except (Refusal, ApparateError) as error:
            response = error_response(error, self._served.limits.retry_after_s)
        except ClientGoneError:
            return
        except Exception as error:
            _LOG.exception("inference failed")
            response = failure_response(error)
        await response(scope, receive, send)

    async def _answer(self, receive: Receive, headers: Headers) -> Response:
        served = self._served
        arrived_s = asyncio.get_running_loop().time()
        if not served.engine.ready:
            raise Refusal(503, f"model {served.name!r} is not ready: ask again later")
        body = await read_body(receive, headers, served.limits)
        request = parse_infer_request(body, _header_length(headers))
        options = options_of(request)
        inputs = check_against(served.engine.model.inputs, request.inputs, served.limits.max_rows)
        deadline_s = None if options.timeout_s is None else arrived_s + options.timeout_s
        try:
            answers = await answer_rows(
                served.engine, inputs, exact=options.exact, deadline_s=deadline_s
            )
        except TimeoutError:
            raise Refusal(504, f"no answer within the {options.timeout_s:g} s of timeout") from None
        content, header_length = encode_infer_response(
            served.name,
            served.version,
            output_tensors(options.outputs, answers),
            request_id=request.id,
            parameters=response_parameters(answers),
        )
        return await self._response(content, header_length, headers)

    async def _response(
        self, content: bytes, header_length: int | None, headers: Headers
    ) -> Response:
        extra: dict[str, str] = {}
        media_type = "application/json"
        if header_length is not None:
            extra[_HEADER_LENGTH] = str(header_length)
            media_type = "application/octet-stream"
        if len(content) >= self._served.limits.compress_from_bytes:
            coding = accepted_coding(headers)
            if coding is not None:
                content = await asyncio.to_thread(compress, content, coding)
                extra["Content-Encoding"] = coding
            extra["Vary"] = "Accept-Encoding"
        return Response(content, headers=extra, media_type=media_type)


def _header_length(headers: Headers) -> int | None:
    text = headers.get(_HEADER_LENGTH.lower().encode())
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise RequestError(f"{_HEADER_LENGTH} is {text[:40]!r}, expected a number of bytes")
    return int(text)
