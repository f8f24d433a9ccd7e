"""The application: endpoints of the protocol's REST part over anything that answers.

The infer endpoint speaks ASGI directly and has nothing between it and the engine but the parser:
the path is a few hundred microseconds, the model is what takes time.
"""

import asyncio
import logging
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from apparate_jax.errors import ApparateError, RequestError
from apparate_jax.serve.http.body import (
    ClientGoneError,
    Headers,
    accepted_coding,
    compress,
    read_body,
    unless_gone,
)
from apparate_jax.serve.http.errors import HttpRefusal, error_response, on_http_exception
from apparate_jax.serve.http.limits import HttpLimits
from apparate_jax.serve.inference import Answering, Served, now_s, server_metadata
from apparate_jax.serve.protocol import encode_infer_response, parse_infer_request

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
    :mod:`apparate_jax.serve.inference.outputs`).

    Args:
        engine: Answers single examples.
        model_name: Under which clients address the model.
        model_version: The one version that there is.
        limits: Bounds on requests; the defaults of :class:`HttpLimits` unless given.

    Raises:
        ConfigError: If a name cannot be part of a path, or the model's inputs are unknown or have
            no datatype of the protocol.
    """
    limits = limits or HttpLimits()
    served = Served(engine, name=model_name, version=model_version, max_rows=limits.max_rows)
    told = _Endpoints(served, limits)
    infer = _Infer(served, limits)
    model = "/v2/models/{model}"
    versioned = model + "/versions/{version}"
    # The path that matters comes first: routes are tried in order.
    routes = [
        Route(f"{model}/infer", infer, methods=["POST"]),
        Route(f"{versioned}/infer", infer, methods=["POST"]),
        Route("/v2/health/live", told.live),
        Route("/v2/health/ready", told.ready),
        Route(f"{model}/ready", told.model_ready),
        Route(f"{versioned}/ready", told.model_ready),
        Route(f"{model}/config", told.model_config),
        Route(f"{versioned}/config", told.model_config),
        Route(model, told.model_metadata),
        Route(versioned, told.model_metadata),
        Route("/v2/repository/index", told.index, methods=["POST"]),
        Route("/v2", told.metadata),
    ]
    handlers = {HTTPException: on_http_exception, ApparateError: told.on_error}
    return Starlette(routes=routes, exception_handlers=handlers)


def _check(served: Served, path: Mapping[str, str]) -> None:
    """Refuse a path that names another model or version."""
    served.check(path["model"], path.get("version", ""))


class _Endpoints:
    """The endpoints that tell of the server and its model."""

    def __init__(self, served: Served, limits: HttpLimits) -> None:
        self._served = served
        self._limits = limits

    async def on_error(self, request: Request, error: Exception) -> Response:
        return error_response(error, self._limits.retry_after_s)

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._served.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(server_metadata())

    async def model_ready(self, request: Request) -> Response:
        _check(self._served, request.path_params)
        ready = self._served.ready
        return JSONResponse({"name": self._served.name, "ready": ready}, 200 if ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        _check(self._served, request.path_params)
        return JSONResponse(self._served.metadata)

    async def model_config(self, request: Request) -> Response:
        _check(self._served, request.path_params)
        return JSONResponse(self._served.config)

    async def index(self, request: Request) -> Response:
        return JSONResponse([self._served.index_entry()])


class _Infer:
    """The infer endpoint, as an ASGI application."""

    def __init__(self, served: Served, limits: HttpLimits) -> None:
        self._served = served
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = dict(scope["headers"])
        try:
            _check(self._served, scope["path_params"])
            response = await self._answer(receive, headers)
        except ClientGoneError:
            return
        except Exception as error:
            if not isinstance(error, ApparateError | HttpRefusal):
                _LOG.exception("inference failed")
            response = error_response(error, self._limits.retry_after_s)
        await response(scope, receive, send)

    async def _answer(self, receive: Receive, headers: Headers) -> Response:
        served = self._served
        arrived_s = now_s()
        served.check_ready()
        body = await read_body(receive, headers, self._limits)
        request = parse_infer_request(body, _header_length(headers))
        reply = await unless_gone(receive, served.reply(request, arrived_s))
        content, header_length = encode_infer_response(
            served.name,
            served.version,
            reply.outputs,
            request_id=request.id,
            parameters=reply.parameters,
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
        if len(content) >= self._limits.compress_from_bytes:
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
