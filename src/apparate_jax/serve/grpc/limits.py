"""What a client of the gRPC server may ask for."""

from dataclasses import dataclass

from apparate_jax.errors import ConfigError

COMPRESSIONS = ("none", "gzip", "deflate")


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bounds on requests and responses.

    Attributes:
        max_message_bytes: Longest message from a client, decompressed.
        max_streamed: Most requests under way on one stream; further ones are not read until then.
        compression: Of responses: ``"none"``, ``"gzip"`` or ``"deflate"``. Requests may have any.
        retry_after_s: What clients are told to wait when the queue is full.
    """

    max_message_bytes: int = 64 * 2**20
    max_streamed: int = 512
    compression: str = "none"
    retry_after_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("max_message_bytes", "max_streamed"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected more than 0")
        if self.max_message_bytes >= 2**31:
            raise ConfigError(
                f"max_message_bytes is {self.max_message_bytes}, expected less than 2**31: gRPC's "
                "messages are no longer"
            )
        if self.retry_after_s < 0:
            raise ConfigError(f"retry_after_s is {self.retry_after_s}, expected 0 or more")
        if self.compression not in COMPRESSIONS:
            raise ConfigError(
                f"compression is {self.compression!r}, expected one of {', '.join(COMPRESSIONS)}"
            )
