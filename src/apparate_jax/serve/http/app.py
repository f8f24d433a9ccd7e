"""The application: endpoints of the protocol's REST part over anything that answers.

The infer endpoint speaks ASGI directly and has nothing between it and the engine but the parser:
the path is a few hundred microseconds, the model is what takes time.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from apparate_jax.errors import ApparateError, RequestError
from apparate_jax.serve.access import ApiKeys
from apparate_jax.serve.http.access import RequireKey
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
from apparate_jax.serve.http.telemetry import telemetry_routes
from apparate_jax.serve.inference import (
    Models,
    Served,
    check_control,
    now_s,
    server_metadata,
    statistics_of,
)
from apparate_jax.serve.protocol import encode_infer_response, parse_infer_request

_LOG = logging.getLogger(__name__)
_HEADER_LENGTH = "Inference-Header-Content-Length"


def build_app(
    models: Models,
    *,
    limits: HttpLimits | None = None,
    model_control: bool = True,
    page: bool = True,
    keys: ApiKeys | None = None,
) -> ASGIApp:
    """Make the application that serves models.

    Responses hold the outputs ``logits`` and ``label``, and on request ``exit``, ``exit_depth`` and
    ``error``; for a request of one row the last three are response parameters as well (see
    :mod:`apparate_jax.serve.inference.outputs`).

    Args:
        models: What is served.
        limits: Bounds on requests; the defaults of :class:`HttpLimits` unless given.
        model_control: Whether clients may load and unload models.
        page: Whether there is a page for people at ``/``.
        keys: Who may ask; everybody if None.
    """
    limits = limits or HttpLimits()
    told = _Endpoints(models, limits, model_control)
    infer = _Infer(models, limits)
    model = "/v2/models/{model}"
    versioned = model + "/versions/{version}"
    # The path that matters comes first: routes are tried in order.
    routes = [
        Route(f"{model}/infer", infer, methods=["POST"]),
        Route(f"{versioned}/infer", infer, methods=["POST"]),
        Route("/v2/health/live", told.live),
        Route("/v2/health/ready", told.ready),
        *(
            Route(f"{path}/{what}", endpoint)
            for path in (model, versioned)
            for what, endpoint in (
                ("ready", told.model_ready),
                ("config", told.model_config),
                ("stats", told.statistics),
            )
        ),
        Route("/v2/models/stats", told.statistics),
        Route(model, told.model_metadata),
        Route(versioned, told.model_metadata),
        Route("/v2/repository/index", told.index, methods=["POST"]),
        Route("/v2/repository/models/{model}/load", told.load, methods=["POST"]),
        Route("/v2/repository/models/{model}/unload", told.unload, methods=["POST"]),
        Route("/v2", told.metadata),
        *telemetry_routes(models.statistics, index=models.index, page=page),
    ]
    handlers = {HTTPException: on_http_exception, ApparateError: told.on_error}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return app if keys is None else RequireKey(app, keys)


def _named(path: Mapping[str, str]) -> tuple[str, str]:
    """Model and version that a path names; the version may be empty."""
    return path["model"], path.get("version", "")


class _Endpoints:
    """The endpoints that tell of the server and its models."""

    def __init__(self, models: Models, limits: HttpLimits, model_control: bool) -> None:
        self._models = models
        self._limits = limits
        self._model_control = model_control

    async def on_error(self, request: Request, error: Exception) -> Response:
        return error_response(error, self._limits.retry_after_s)

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._models.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(server_metadata())

    async def model_ready(self, request: Request) -> Response:
        served = self._models.served(*_named(request.path_params))
        return JSONResponse(
            {"name": served.name, "ready": served.ready}, 200 if served.ready else 503
        )

    async def model_metadata(self, request: Request) -> Response:
        return JSONResponse(self._models.served(*_named(request.path_params)).metadata)

    async def model_config(self, request: Request) -> Response:
        return JSONResponse(self._models.served(*_named(request.path_params)).config)

    async def statistics(self, request: Request) -> Response:
        path = request.path_params
        return JSONResponse(statistics_of(self._models, *(_named(path) if path else ("", ""))))

    async def index(self, request: Request) -> Response:
        return JSONResponse(self._models.index())

    async def load(self, request: Request) -> Response:
        await self._control(self._models.load, request)
        return JSONResponse({})

    async def unload(self, request: Request) -> Response:
        await self._control(self._models.unload, request)
        return JSONResponse({})

    async def _control(self, what: Callable[[str], None], request: Request) -> None:
        check_control(self._model_control)
        await asyncio.to_thread(what, request.path_params["model"])


class _Infer:
    """The infer endpoint, as an ASGI application."""

    def __init__(self, models: Models, limits: HttpLimits) -> None:
        self._models = models
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = dict(scope["headers"])
        try:
            with self._models.lease(*_named(scope["path_params"])) as served:
                response = await self._answer(served, receive, headers)
        except ClientGoneError:
            return
        except Exception as error:
            if not isinstance(error, ApparateError | HttpRefusal):
                _LOG.exception("inference failed")
            response = error_response(error, self._limits.retry_after_s)
        await response(scope, receive, send)

    async def _answer(self, served: Served, receive: Receive, headers: Headers) -> Response:
        arrived_s = now_s()
        served.check_ready()
        body = await read_body(receive, headers, self._limits)
        request = parse_infer_request(body, _header_length(headers))
        answering = served.reply(request, arrived_s, carrier=_trace_headers(headers))
        reply = await unless_gone(receive, answering)
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


def _trace_headers(headers: Headers) -> Mapping[str, str]:
    """The headers of W3C Trace Context, where a client sends them."""
    found = ((name, headers.get(name.encode())) for name in ("traceparent", "tracestate"))
    return {name: value.decode("latin-1") for name, value in found if value is not None}


def _header_length(headers: Headers) -> int | None:
    text = headers.get(_HEADER_LENGTH.lower().encode())
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise RequestError(
            f"{_HEADER_LENGTH} is {text[:40].decode('latin-1')!r}, expected a number of bytes"
        )
    return int(text)
