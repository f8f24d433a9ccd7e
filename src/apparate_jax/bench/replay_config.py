"""Settings of a replay, and how slow its device is at what time."""

from bisect import bisect_right
from dataclasses import dataclass, field

from apparate_jax.control.load import LoadPolicy, by_worth
from apparate_jax.errors import ConfigError
from apparate_jax.serve.engine_config import EngineConfig


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow the device is at what time: a neighbour who comes and goes, throttling by heat.

    Attributes:
        since_s: Ascending times; before the first its factor holds as well.
        factors: What the profile's times are multiplied by from each of them on.
    """

    since_s: tuple[float, ...]
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.since_s) == len(self.factors) or min(self.factors) <= 0:
            raise ConfigError(
                f"a pace of {len(self.since_s)} times and {len(self.factors)} factors: expected "
                "one factor above 0 per time, and at least one"
            )

    def at(self, time_s: float) -> float:
        """The factor of a batch that starts now."""
        return self.factors[max(0, bisect_right(self.since_s, time_s) - 1)]


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """Settings of a replay; batch shapes are the profile's.

    Attributes:
        engine: Limits of the engine, and how it forms batches.
        load_policy: Which of the plan's ramps a batch runs, by the load that it sees.
        control_delay_ms: From a batch's end to the moment that what the controller made of it is in
            force.
        first_row: Row of the recording that the first request brings.
        seed: Of how single runs spread.
        pace: A device whose speed changes, instead of that spread; None for the profile's.
        refuse: Whether a full queue refuses requests, as a server's does; else it ends the replay.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    load_policy: LoadPolicy = by_worth
    control_delay_ms: float = 0.0
    first_row: int = 0
    seed: int = 0
    pace: Pace | None = None
    refuse: bool = False

    def __post_init__(self) -> None:
        delay = self.control_delay_ms
        if not 0.0 <= delay < float("inf") or min(self.first_row, self.seed) < 0:
            raise ConfigError(
                f"control_delay_ms is {delay}, first_row {self.first_row} and seed {self.seed}, "
                "expected at least 0"
            )
