"""Why a request gets no answer: one table from error to kind; each frontend maps kinds to its own.

Texts of errors that nobody expected are for the log: they may hold anything.
"""

from enum import Enum, auto

from apparate_jax.errors import (
    ApparateError,
    DeadlinePassedError,
    DeadlineUnreachableError,
    EngineClosedError,
    QueueFullError,
    RequestError,
)


class Kind(Enum):
    """Why a request was not answered."""

    INVALID = auto()
    """It is malformed or does not fit the model."""
    UNKNOWN = auto()
    """No such model or version."""
    UNSUPPORTED = auto()
    """The protocol has it, this server has not."""
    FORBIDDEN = auto()
    """Clients may not ask for it here."""
    FULL = auto()
    """Too many requests wait, or too many for its deadline: come again later."""
    UNAVAILABLE = auto()
    """The model takes no requests: not ready, or closing."""
    LATE = auto()
    """The client's time ran out."""
    FAILED = auto()
    """The model has no answer to this input, or something broke."""


class Refusal(ApparateError):
    """A request that is refused before the engine has seen it, or after the client's time.

    Attributes:
        kind: Why.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


_KINDS: tuple[tuple[type[ApparateError], Kind], ...] = (
    (RequestError, Kind.INVALID),
    (QueueFullError, Kind.FULL),
    (DeadlineUnreachableError, Kind.FULL),
    (DeadlinePassedError, Kind.LATE),
    (EngineClosedError, Kind.UNAVAILABLE),
)


def kind_of(error: Exception) -> Kind:
    """Why ``error`` ended a request."""
    if isinstance(error, Refusal):
        return error.kind
    return next((kind for error_type, kind in _KINDS if isinstance(error, error_type)), Kind.FAILED)


def public_text(error: Exception) -> str:
    """What a client is told of ``error``; without its text, if nobody raised it for clients."""
    if isinstance(error, ApparateError):
        return str(error)
    return f"the server failed on this request ({type(error).__name__}): its log has the details"
