"""Many systems on the same arrivals of a recorded stream, and what each saved and held.

Latencies are compared with the original model's at the same moment: the same requests, the same
times. Saved is the share of the original's percentile; a negative one is a loss.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench import two_layer
from apparate_jax.bench.baselines import DEFAULT, SYSTEMS, Policy, Task, check_names, policy_of
from apparate_jax.bench.comparison import Answers
from apparate_jax.bench.oracle import earliest_site, oracle_latency_ms
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.replay import ReplayConfig, replay, saturate
from apparate_jax.bench.replayed import ReplayedConfig
from apparate_jax.bench.report import percentiles, windows_below
from apparate_jax.bench.workload import Times, arrivals, at_rate
from apparate_jax.errors import ConfigError

COMPARED = ("p25", "p50", "p95", "p99")


class Played(NamedTuple):
    """What a system did.

    Attributes:
        answers: Of all requests, in the order in which they arrived.
        throughput_rps: With a queue that is never empty.
        early: bool[n], who left before the end.
    """

    answers: Answers
    throughput_rps: float
    early: NDArray[np.bool_]


class Match(NamedTuple):
    """What all systems are given alike.

    Attributes:
        task: The stream, and what may be tuned on.
        times: Arrivals.
        config: Settings of the benchmark.
        settings: Settings of the replay.
        vanilla: What the original model did.
    """

    task: Task
    times: Times
    config: ReplayedConfig
    settings: ReplayConfig
    vanilla: Played


def prepare(
    task: Task,
    config: ReplayedConfig | None = None,
    settings: ReplayConfig | None = None,
    trace: Times | None = None,
) -> Match:
    """Measure the original model, and with its throughput the arrivals.

    Args:
        task: The stream.
        config: Load, arrivals, number of requests.
        settings: Settings of the replay; the load policy is each system's own.
        trace: Arrival times to use instead of drawn ones, brought to the rate.

    Raises:
        QueueFullError: The original model falls behind its arrivals by more than the queue holds.
    """
    config, settings = config or ReplayedConfig(), settings or ReplayConfig()
    policy = policy_of("vanilla", task)
    full = saturate(policy.recording, policy.controller, config.saturated, settings)
    rate = config.rate_rps or config.load_frac * full.throughput_rps
    count = config.settle + config.requests
    if trace is None:
        times = arrivals(config.arrivals, rate, count, config.seed)
    else:
        times = at_rate(trace, rate)[:count]
    done = replay(policy.recording, policy.controller, times, settings).answers
    vanilla = Played(done, full.throughput_rps, np.zeros(len(times), np.bool_))
    return Match(task, times, config, settings, vanilla)


def play(name: str, match: Match) -> Played:
    """Let a system serve the arrivals.

    Raises:
        ConfigError: It is unknown, or lacks what it needs.
        QueueFullError: It falls behind its arrivals by more than the queue holds.
    """
    check_names([name])
    if name == "vanilla":
        return match.vanilla
    if name == "oracle":
        return _oracle(match)
    if name == "two-layer":
        return _two_layer(match)
    return play_policy(policy_of(name, match.task), match)


def play_policy(policy: Policy, match: Match) -> Played:
    """Replay a policy at the load, and with a queue that is never empty."""
    engine = policy.on(match.settings.engine)
    settings = replace(match.settings, load_policy=policy.load_policy, engine=engine)
    recording, controller = policy.recording, policy.controller
    full = saturate(recording, controller, match.config.saturated, settings)
    done = replay(recording, controller, match.times, settings).answers
    return Played(done, full.throughput_rps, done.exits < len(recording.site_names))


def compare(names: Sequence[str], match: Match) -> list[dict[str, Any]]:
    """What each system saved and held, a row each.

    Args:
        names: Of systems.
        match: Arrivals and stream.
    """
    return [{"system": name, **figures(play(name, match), match)} for name in check_names(names)]


def names_for(task: Task) -> tuple[str, ...]:
    """The systems that a task has everything for."""
    tailored = task.ours.stream.entropies is None
    names = DEFAULT if task.small is None else tuple(SYSTEMS)
    return tuple(n for n in names if not (tailored and n.startswith("deebert")))


def figures(played: Played, match: Match) -> dict[str, Any]:
    """Percentiles, what is saved of the original's, agreement and throughput (JSON values)."""
    settle = slice(min(match.config.settle, len(match.times) - 1), None)
    own, base = played.answers.part(settle), match.vanilla.answers.part(settle)
    latency, vanilla = percentiles(own.latency_ms), percentiles(base.latency_ms)
    saved = {
        f"{p}_saved_frac": round(1.0 - latency[f"{p}_ms"] / vanilla[f"{p}_ms"], 5) for p in COMPARED
    }
    mean = 1.0 - float(own.latency_ms.mean() / base.latency_ms.mean())
    right = played.answers.right
    return {
        "agreement": round(float(right.mean()), 5),
        "disagreement": round(1.0 - float(right.mean()), 5),
        "windows_below_constraint": windows_below(right, match.task.control.accuracy),
        **latency,
        **saved,
        "mean_saved_frac": round(mean, 5),
        "early_frac": round(float(played.early.mean()), 5),
        "throughput_rps": round(played.throughput_rps, 2),
        "throughput_ratio": round(played.throughput_rps / match.vanilla.throughput_rps, 4),
    }


def earliest_of(recording: Recording) -> NDArray[np.int64]:
    """i64[N]: the earliest site of each row whose ramp is right; the number of sites at the end."""
    sites = len(recording.site_names)
    return earliest_site(recording.ramps, sites, recording.predictions, recording.final_predictions)


def _oracle(match: Match) -> Played:
    """The original's answers, each moved to its earliest right site."""
    stream, vanilla = match.task.ours.stream, match.vanilla
    rows = (match.settings.first_row + np.arange(len(match.times))) % len(stream)
    earliest = earliest_of(stream)[rows]
    latency = oracle_latency_ms(vanilla.answers, earliest, stream.profile)
    answers = vanilla.answers._replace(latency_ms=latency, exits=earliest.astype(np.int32))
    return Played(answers, vanilla.throughput_rps, earliest < len(stream.site_names))


def _two_layer(match: Match) -> Played:
    if match.task.small is None:
        raise ConfigError(
            "two-layer needs a small model: give the recording of one on the same rows"
        )
    sample, small = match.task.small
    profile, engine = match.task.ours.stream.profile, match.settings.engine
    threshold = two_layer.tune(sample, match.task.eps)
    answers, _ = two_layer.serve(small, threshold, profile, match.times, engine)
    requests = match.config.saturated
    waiting = replace(engine, queue_size=max(requests, engine.queue_size))
    _, end_s = two_layer.serve(small, threshold, profile, np.zeros(requests), waiting)
    return Played(answers, requests / end_s, answers.exits == 0)
