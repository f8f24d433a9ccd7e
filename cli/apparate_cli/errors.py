"""One table from exceptions to what the user reads; the traceback only with APPARATE_DEBUG=1."""

import os
from collections.abc import Callable

from apparate_jax.errors import ApparateError

Explain = Callable[[BaseException], str]

MESSAGES: tuple[tuple[type[BaseException], Explain], ...] = (
    (ApparateError, str),
    (MemoryError, lambda error: "out of memory: use smaller batch shapes, or less data (--limit)"),
    (
        ModuleNotFoundError,
        lambda error: (
            f"{error}: an optional part is missing, pip install 'apparate-jax[serve,data,bench]'"
        ),
    ),
    (OSError, lambda error: f"{error}"),
)


def explain(error: BaseException) -> str | None:
    """One line for the user; None for an error that only a traceback explains."""
    for kind, message in MESSAGES:
        if isinstance(error, kind):
            return message(error)
    return None


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("APPARATE_DEBUG", "") not in ("", "0")
