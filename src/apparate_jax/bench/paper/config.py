"""Settings of the evaluation: those of the studies, but for how much is run."""

from dataclasses import asdict, dataclass
from typing import Any

from apparate_jax.bench.live import LiveConfig
from apparate_jax.bench.paper.suite import Workload
from apparate_jax.bench.study import StudyConfig
from apparate_jax.errors import ConfigError

STUDY = StudyConfig()
SENSITIVITY = ("first", "all")
"""Of which workloads sensitivity is studied."""


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """Settings of an evaluation.

    Attributes:
        requests: Of each run.
        settle: Requests before them, that count for agreement only.
        saturated: Requests from which throughput is taken.
        seeds: Runs of each setting, with other arrivals and another stream.
        load_frac: Mean arrival rate, as a share of the original's throughput.
        accuracy: The constraint.
        ramp_budget: What ramps may add to the worst-case latency, as a share.
        sensitivity: ``"first"``: of the first workload of each kind only, as the paper does;
            ``"all"``: of every one.
        quick: A few minutes, and nothing live.
        live_rounds: Turns of each system on the wall clock.
        live_round_s: Length of one.
    """

    requests: int = 6000
    settle: int = STUDY.settle
    saturated: int = STUDY.saturated
    seeds: int = STUDY.seeds
    load_frac: float = STUDY.load_frac
    accuracy: float = STUDY.accuracy
    ramp_budget: float = STUDY.ramp_budget
    sensitivity: str = "first"
    quick: bool = False
    live_rounds: int = 6
    live_round_s: float = 12.0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}, expected at least 1 run of each setting")
        if self.requests < 2:
            raise ConfigError(f"requests is {self.requests}, expected at least 2")
        if self.sensitivity not in SENSITIVITY:
            raise ConfigError(
                f"sensitivity is {self.sensitivity!r}, expected one of {list(SENSITIVITY)}"
            )

    def study(self, workload: Workload, systems: tuple[str, ...] | None = None) -> StudyConfig:
        """What the cells of a study of this workload share."""
        return StudyConfig(
            stream=workload.stream,
            arrivals=workload.pace,
            load_frac=self.load_frac,
            rate_rps=workload.rate,
            requests=self.requests,
            settle=self.settle,
            saturated=self.saturated,
            seeds=self.seeds,
            accuracy=self.accuracy,
            ramp_budget=self.ramp_budget,
            systems=systems,
        )

    def live(self, workload: Workload) -> LiveConfig:
        """Settings of a live part, the original twice in each round."""
        return LiveConfig(
            load_frac=self.load_frac,
            rate_rps=workload.rate,
            arrivals=workload.pace,
            rounds=self.live_rounds,
            round_s=self.live_round_s,
            noise_floor=True,
        )

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


QUICK = PaperConfig(requests=1500, settle=512, saturated=1024, seeds=1, quick=True)
"""What ``--quick`` runs."""
