"""Errors as HTTP responses: one table from kind to status; the body is ``{"error": text}``."""

from collections.abc import Mapping
from types import MappingProxyType

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from apparate_jax.serve.inference import Kind, kind_of, public_text

_STATUS: Mapping[Kind, int] = MappingProxyType(
    {
        Kind.INVALID: 400,
        Kind.UNKNOWN: 404,
        Kind.UNSUPPORTED: 501,
        Kind.FORBIDDEN: 403,
        Kind.FULL: 503,
        Kind.UNAVAILABLE: 503,
        Kind.LATE: 504,
        Kind.FAILED: 500,
    }
)


class HttpRefusal(Exception):
    """A request that HTTP itself refuses: too large, too slow, of a coding that is unknown.

    Attributes:
        status: HTTP status.
        headers: Sent with the response.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def error_response(error: Exception, retry_after_s: int) -> Response:
    """The response that tells a client of ``error``.

    Args:
        error: What went wrong.
        retry_after_s: When to come again after the queue was full, seconds.
    """
    if isinstance(error, HttpRefusal):
        return JSONResponse({"error": str(error)}, error.status, error.headers)
    kind = kind_of(error)
    headers = {"Retry-After": str(retry_after_s)} if kind is Kind.FULL else None
    return JSONResponse({"error": public_text(error)}, _STATUS[kind], headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Unknown paths and wrong methods, in the protocol's form."""
    assert isinstance(error, HTTPException)
    text = (
        f"{request.method} {request.url.path}: {error.detail}; expected an endpoint of the Open "
        "Inference Protocol v2, such as GET /v2 or POST /v2/models/NAME/infer"
    )
    return JSONResponse({"error": text}, error.status_code, error.headers)
