"""What a client of the HTTP server may ask for."""

from dataclasses import dataclass

from apparate_jax.errors import ConfigError


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds on requests and responses.

    Attributes:
        max_body_bytes: Longest request body, as sent and decompressed.
        body_timeout_s: How long a client may take to send a body.
        compress_from_bytes: Shortest response that is compressed for clients that accept it; most
            HTTP clients say they do, and for a few logits it costs time and gains nothing.
        retry_after_s: What clients are told to wait when the queue is full; whole seconds.
    """

    max_body_bytes: int = 64 * 2**20
    body_timeout_s: float = 30.0
    compress_from_bytes: int = 32 * 2**10
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "body_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected more than 0")
        for name in ("compress_from_bytes", "retry_after_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more")
