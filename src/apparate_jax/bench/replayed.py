"""The replayed benchmark: both systems on a recorded stream, the counterpart of the live one.

The original model is the same engine under the policy that never lets anybody out. Throughput is
what a queue that is never empty gives; latency is taken at a stated share of the original's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.comparison import SYSTEMS, Comparison, Round
from apparate_jax.bench.oracle import earliest_site, oracle_latency_ms
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.replay import ReplayConfig, replay, saturate
from apparate_jax.bench.replay_result import ReplayResult
from apparate_jax.bench.report import Subject
from apparate_jax.bench.workload import ARRIVALS, Times, arrivals, at_rate, check_load
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.controller import make_controller
from apparate_jax.control.interface import Controller, fixed
from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig


@dataclass(frozen=True, slots=True)
class ReplayedConfig:
    """Settings of the replayed benchmark.

    Attributes:
        load_frac: Mean arrival rate, as a share of the original's throughput.
        rate_rps: Requests per second instead, as of a camera.
        arrivals: ``"poisson"`` or ``"fixed"``; not used with a trace.
        requests: At the stated load.
        settle: Requests before them at the same rate: they count for agreement, not for latency.
        saturated: Requests from which throughput is taken.
        seed: Of arrivals.
    """

    load_frac: float = 0.4
    arrivals: str = "poisson"
    requests: int = 20_000
    settle: int = 512
    saturated: int = 4096
    seed: int = 0
    rate_rps: float | None = None

    def __post_init__(self) -> None:
        check_load(self.load_frac, self.rate_rps)
        if min(self.requests, self.saturated) < 1 or min(self.settle, self.seed) < 0:
            raise ConfigError(
                f"requests is {self.requests} and saturated {self.saturated}, expected at least "
                f"1; settle is {self.settle} and seed {self.seed}, expected at least 0"
            )
        if self.arrivals not in ARRIVALS:
            raise ConfigError(f"arrivals are {self.arrivals!r}, expected one of {list(ARRIVALS)}")

    @property
    def stated_load(self) -> float | None:
        """The load that was asked for; None where a rate was."""
        return self.load_frac if self.rate_rps is None else None


def policy(
    recording: Recording, control: ControlConfig, placement: PlacementConfig | None = None
) -> Controller:
    """The controller that would serve the recorded ramps, with the profiled ones active first.

    Args:
        recording: Its ramps, held-out samples and profile.
        control: Settings.
        placement: Budgets of the ramps.
    """
    sizes = dict(zip(recording.ramps, recording.ramp_bytes, strict=False))
    return make_controller(
        control,
        recording.profile.sites,
        LatencyModel(recording.profile),
        validation=recording.validation,
        placement=placement,
        num_bytes=sizes or None,
    )


def subject(recording: Recording, accuracy: float) -> Subject:
    """What a report of a replay is about."""
    return Subject(
        recording.model,
        recording.workload,
        recording.site_names,
        recording.depths,
        recording.profile,
        accuracy,
    )


def run_replayed(
    recording: Recording,
    controller: Controller,
    config: ReplayedConfig | None = None,
    settings: ReplayConfig | None = None,
    *,
    trace: Times | None = None,
) -> tuple[Comparison, dict[str, ReplayResult]]:
    """Replay both systems on the same arrivals.

    Args:
        recording: The stream.
        controller: Policy of the early answers.
        config: Settings of the benchmark.
        settings: Settings of the replay.
        trace: Arrival times to use instead of drawn ones, brought to the rate.

    Returns:
        What a report is made of, and both replays at the stated load.

    Raises:
        QueueFullError: The system falls behind its arrivals by more than the queue holds.
    """
    config = config or ReplayedConfig()
    policies = {"vanilla": fixed(ExitPlan()), "apparate": controller}
    full = {n: saturate(recording, policies[n], config.saturated, settings) for n in SYSTEMS}
    throughput = {name: full[name].throughput_rps for name in SYSTEMS}
    rate = config.rate_rps or config.load_frac * throughput["vanilla"]
    times = _times(config, rate, trace)
    results = {name: replay(recording, policies[name], times, settings) for name in SYSTEMS}
    settle = min(config.settle, len(times) - 1)
    # Whoever is refused has no answer: the rounds begin at each system's first one after settling.
    begin = {name: int(np.searchsorted(results[name].requests, settle)) for name in SYSTEMS}
    answers = {name: results[name].answers.part(slice(begin[name], None)) for name in SYSTEMS}
    first = (0 if settings is None else settings.first_row) + settle
    early = results["apparate"]
    result = Comparison(
        rounds=(Round(throughput, answers, first % len(recording), SYSTEMS),),
        rate_rps=rate,
        plan=early.plan,
        decisions=early.decisions,
        outside=early.answers.part(slice(begin["apparate"])),
    )
    return result, results


def oracle_of(recording: Recording, result: Comparison) -> NDArray[np.float64]:
    """Latencies of the oracle, f64[n]: each answer at its earliest right site.

    Of a replay in which nobody was refused.
    """
    (measured,) = result.rounds
    vanilla = measured.answers["vanilla"]
    rows = (measured.first_input + np.arange(len(vanilla.latency_ms))) % len(recording)
    earliest = earliest_site(
        recording.ramps,
        len(recording.site_names),
        recording.predictions,
        recording.final_predictions,
    )
    return oracle_latency_ms(vanilla, earliest[rows], recording.profile)


def plan_changes(recording: Recording, result: ReplayResult) -> list[dict[str, Any]]:
    """Every change of the set of active ramps: when, and which (JSON values)."""
    changes: list[dict[str, Any]] = []
    sites: tuple[int, ...] | None = None
    for at_s, plan in result.plans:
        if plan.sites != sites:
            names = [recording.site_names[site] for site in plan.sites]
            changes.append({"at_s": round(at_s, 3), "sites": names})
        sites = plan.sites
    return changes


def _times(config: ReplayedConfig, rate: float, trace: Times | None) -> Times:
    count = config.settle + config.requests
    if trace is None:
        return arrivals(config.arrivals, rate, count, config.seed)
    return at_rate(trace, rate)[:count]
