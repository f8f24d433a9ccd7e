"""Errors as gRPC statuses: one table from kind to code; the details say what is wrong."""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import grpc

from apparate_jax.errors import ApparateError
from apparate_jax.serve.inference import Kind, kind_of, public_text

_CODES: Mapping[Kind, grpc.StatusCode] = MappingProxyType(
    {
        Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Kind.UNKNOWN: grpc.StatusCode.NOT_FOUND,
        Kind.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
        Kind.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
        # What clients with a policy for retries try again; the pushback tells them when.
        Kind.FULL: grpc.StatusCode.UNAVAILABLE,
        Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Kind.LATE: grpc.StatusCode.DEADLINE_EXCEEDED,
        Kind.FAILED: grpc.StatusCode.INTERNAL,
    }
)
_PUSHBACK = "grpc-retry-pushback-ms"
_LOG = logging.getLogger(__name__)


def code_of(error: Exception) -> grpc.StatusCode:
    """The status of a call that ended with ``error``."""
    return _CODES[kind_of(error)]


def told(error: Exception) -> str:
    """What the client hears of ``error``; what nobody expected goes to the log."""
    if not isinstance(error, ApparateError):
        _LOG.error("inference failed", exc_info=error)
    return public_text(error)


async def refuse(
    context: "grpc.aio.ServicerContext[Any, Any]", error: Exception, retry_after_s: float
) -> NoReturn:
    """End a call with the status of ``error``.

    Args:
        context: Of the call.
        error: What went wrong.
        retry_after_s: When to come again after the queue was full.
    """
    full = kind_of(error) is Kind.FULL
    trailing = ((_PUSHBACK, str(round(retry_after_s * 1e3))),) if full else ()
    await context.abort(code_of(error), told(error), trailing)
