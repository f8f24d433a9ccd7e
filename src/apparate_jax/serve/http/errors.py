"""Errors as HTTP responses: one table from exception to status; the body is ``{"error": text}``."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from apparate_jax.errors import (
    ApparateError,
    EngineClosedError,
    NumericsError,
    QueueFullError,
    RequestError,
)

_STATUS: tuple[tuple[type[ApparateError], int], ...] = (
    (RequestError, 400),
    (QueueFullError, 503),
    (EngineClosedError, 503),
    (NumericsError, 500),
)


class Refusal(Exception):
    """A request that HTTP itself refuses: unknown path, too large, too slow, not ready.

    Attributes:
        status: HTTP status.
        headers: Sent with the response.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def error_response(error: Refusal | ApparateError, retry_after_s: int) -> Response:
    """The response that tells a client of ``error``.

    Args:
        error: What went wrong.
        retry_after_s: When to come again after the queue was full, seconds.
    """
    text = {"error": str(error)}
    if isinstance(error, Refusal):
        return JSONResponse(text, error.status, error.headers)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    full = isinstance(error, QueueFullError)
    return JSONResponse(text, status, {"Retry-After": str(retry_after_s)} if full else None)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Unknown paths and wrong methods, in the protocol's form."""
    assert isinstance(error, HTTPException)
    text = (
        f"{request.method} {request.url.path}: {error.detail}; expected an endpoint of the Open "
        "Inference Protocol v2, such as GET /v2 or POST /v2/models/NAME/infer"
    )
    return JSONResponse({"error": text}, error.status_code, error.headers)


def failure_response(error: Exception) -> Response:
    """The response to an error that nobody expected; its text is for the log, not the client."""
    text = f"the server failed on this request ({type(error).__name__}): its log has the details"
    return JSONResponse({"error": text}, 500)
