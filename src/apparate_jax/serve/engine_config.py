"""Limits of the engine and how it forms batches: the one place of their defaults."""

import math
from dataclasses import dataclass, field, replace

from apparate_jax.control.config import ControlConfig
from apparate_jax.errors import ConfigError
from apparate_jax.serve.policies import Policy, immediate, slo, timeout

BATCHING = ("immediate", "timeout", "slo")
"""Batching policies by name."""


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """How batches are formed of what waits.

    Attributes:
        policy: One of :data:`BATCHING`.
        timeout_ms: With ``timeout``: the longest that the oldest request waits for a full batch.
        slo_ms: With ``slo``: when an answer is due after its request's arrival, unless the request
            says so itself. There is no default.
        slo_quantile: With ``slo``: the quantile of single runs around the profile's medians that
            counts, above 0 and at most 1; 1 is the slowest measured.
        priority_levels: Levels of priority; 1 goes first.
        default_priority: Level of requests that name none.
    """

    policy: str = "immediate"
    timeout_ms: float = 2.0
    slo_ms: float | None = None
    slo_quantile: float = 1.0
    priority_levels: int = 1
    default_priority: int = 1

    def __post_init__(self) -> None:
        if self.policy not in BATCHING:
            raise ConfigError(f"batching is {self.policy!r}, expected one of {list(BATCHING)}")
        if not 0.0 <= self.timeout_ms < math.inf:
            raise ConfigError(f"the batch timeout is {self.timeout_ms} ms, expected at least 0")
        if self.policy == "slo" and self.slo_ms is None:
            raise ConfigError("batching is 'slo', but within what? Give slo_ms (--slo-ms)")
        if self.slo_ms is not None and not 0.0 < self.slo_ms < math.inf:
            raise ConfigError(f"slo_ms is {self.slo_ms}, expected above 0")
        if not 0.0 < self.slo_quantile <= 1.0:
            raise ConfigError(
                f"slo_quantile is {self.slo_quantile}, expected above 0 and at most 1"
            )
        if not 1 <= self.default_priority <= self.priority_levels:
            raise ConfigError(
                f"default_priority is {self.default_priority} of {self.priority_levels} priority "
                "levels, expected 1 to their number"
            )

    @property
    def timed(self) -> bool:
        """Whether it goes by deadlines and the measured profile."""
        return self.make().timed

    def make(self) -> Policy:
        """The policy."""
        if self.policy == "timeout":
            return timeout(self.timeout_ms / 1e3)
        return slo if self.policy == "slo" else immediate

    @property
    def due_after_s(self) -> float:
        """When an answer is due after its request's arrival; infinite where nobody said so."""
        if self.policy == "slo" and self.slo_ms is not None:
            return self.slo_ms / 1e3
        return math.inf


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of the engine.

    Attributes:
        max_in_flight: Batches on the device at a time; 2 keeps it busy.
        queue_size: Requests that may wait before further ones are refused.
        batching: How batches are formed.
        defer: Batches that may go before the rest of one whose requests all have their early
            answers; 0: nothing is deferred. Batching that goes by time defers nothing either: its
            forecast is of batches that run one after another.
    """

    max_in_flight: int = 2
    queue_size: int = 1024
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    defer: int = 8

    def __post_init__(self) -> None:
        if self.max_in_flight < 1 or self.queue_size < 1:
            raise ConfigError(
                f"max_in_flight is {self.max_in_flight} and queue_size {self.queue_size}, "
                "expected at least 1 each"
            )
        if self.defer < 0:
            raise ConfigError(f"defer is {self.defer}, expected 0 or a number of batches")

    @property
    def deferrals(self) -> int:
        """What :attr:`defer` comes to with this batching."""
        return 0 if self.batching.timed else self.defer

    def suited(self, control: ControlConfig) -> ControlConfig:
        """Settings of control for this engine.

        Where nothing is deferred, others save nothing, and every batch is checked at once.
        """
        return control if self.deferrals else replace(control, others=0.0, unchecked_batches=1)
