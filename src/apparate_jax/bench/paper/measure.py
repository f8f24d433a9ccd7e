"""What parts measure that no study does: all systems with their curves, and overheads.

Curves are kept as they are drawn (a few hundred points), so that a report can be made again from
the parts alone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.baselines import Policy, policy_of
from apparate_jax.bench.compare import Match, Played, figures, play, play_policy, prepare
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.replay import ReplayConfig
from apparate_jax.bench.report import WINDOW
from apparate_jax.bench.study import (
    Inputs,
    Row,
    StudyConfig,
    means,
    replayed,
    stream_task,
    usual,
)
from apparate_jax.control.interface import Controller, Info, Observation
from apparate_jax.core import FINAL, ExitPlan

Progress = Callable[[int, int, str], None]
CURVES = ("vanilla", "apparate", "paper", "two-layer", "oracle")
"""Systems whose distribution of latency is kept."""
HELD = ("apparate", "paper", "initial-only", "uniform")
"""Systems whose agreement over time is kept."""
SHARES = np.linspace(0.0, 100.0, 201)
POINTS = 240


def systems(
    inputs: Inputs, names: tuple[str, ...], config: StudyConfig, progress: Progress
) -> dict[str, Any]:
    """Every system on the same arrivals, with every seed (JSON values).

    Args:
        inputs: Recordings of one workload.
        names: Of the systems; vanilla is always there.
        config: Load, requests, seeds.
        progress: Told of systems done.
    """
    rows: list[Row] = []
    latency: dict[str, list[NDArray[np.float64]]] = {}
    held: dict[str, Any] = {}
    exits: dict[str, float] = {}
    for seed in range(config.seeds):
        match = _match(inputs, config, seed)
        for done, name in enumerate(names, 1):
            played = play(name, match)
            rows.append({"setting": "all", "system": name, "seed": seed, **figures(played, match)})
            if name in CURVES:
                own = played.answers.latency_ms[match.config.settle :]
                latency.setdefault(name, []).append(own)
            if name in HELD and seed == 0:
                held[name] = agreement(played.answers.right)
            if name == "apparate" and seed == 0:
                exits = exit_rates(match.task.ours.stream, played)
            progress(seed * len(names) + done, config.seeds * len(names), name)
    curves = {
        name: np.round(np.percentile(np.concatenate(parts), SHARES), 4).tolist()
        for name, parts in latency.items()
    }
    return {
        "rows": means(rows),
        "by_seed": rows,
        "curves": curves,
        "agreement": held,
        "exit_rates": exits,
        "heavy": inputs.heavy is not None,
    }


def _match(inputs: Inputs, config: StudyConfig, seed: int) -> Match:
    cell = usual(config)
    task = stream_task(inputs, cell, config, seed)
    bench = replayed(config, config.load_frac, config.arrivals, seed)
    return prepare(task, bench, ReplayConfig(cell.engine, seed=seed), inputs.trace)


def agreement(right: NDArray[np.bool_]) -> dict[str, Any]:
    """Agreement of the last answers and of all so far, at a few hundred moments (JSON values).

    Args:
        right: bool[n], in the order of arrival.
    """
    count = len(right)
    window = min(WINDOW, max(1, count // 4))
    total = np.concatenate([[0], np.cumsum(right)])
    at = np.unique(np.linspace(window, count, min(POINTS, count - window + 1)).astype(int))
    return {
        "window": window,
        "answers": at.tolist(),
        "last": np.round((total[at] - total[at - window]) / window, 5).tolist(),
        "so_far": np.round(total[at] / at, 5).tolist(),
    }


def exit_rates(stream: Recording, played: Played) -> dict[str, float]:
    """Share of answers by the name of the exit, and at the end."""
    sites = len(stream.site_names)
    rates = np.bincount(played.answers.exits, minlength=sites + 1) / len(played.answers.exits)
    left = {stream.site_names[s]: round(float(rates[s]), 4) for s in range(sites) if rates[s] > 0}
    return left | {FINAL: round(float(rates[sites]), 4)}


@dataclass(slots=True)
class Clocked:
    """A controller that is timed: milliseconds of updates, by what they did."""

    controller: Controller
    quiet_ms: list[float] = field(default_factory=list)
    tuning_ms: list[float] = field(default_factory=list)

    def timed(self) -> Controller:
        """The same controller, with a clock around its updates."""
        return self.controller._replace(update=self._update)

    def _update(self, state: Any, seen: Observation) -> tuple[ExitPlan, Any, Info]:
        start = time.perf_counter()
        plan, state, info = self.controller.update(state, seen)
        took_ms = (time.perf_counter() - start) * 1e3
        # Of a change of the set nothing is tuned, but it takes as long.
        busy = info.tuning is not None or bool(info.events)
        (self.tuning_ms if busy else self.quiet_ms).append(took_ms)
        return plan, state, info


def overheads(inputs: Inputs, parameter_bytes: int | None, config: StudyConfig) -> dict[str, Any]:
    """What splitting, ramps and control cost (JSON values).

    Args:
        inputs: Recordings of one workload.
        parameter_bytes: Of the original model, None if not known.
        config: Load and requests of the run in which control is timed.
    """
    first = inputs.traces[0]
    profile = first.profile
    shapes = [
        {
            "batch": shape.batch,
            "vanilla_ms": shape.vanilla_ms,
            "total_ms": shape.total_ms,
            "added_frac": round(shape.overhead_frac, 5),
            "heads_frac": round(
                sum(shape.ramp_ms[site] for site in profile.sites) / shape.vanilla_ms, 5
            ),
        }
        for shape in profile.shapes
    ]
    sizes = dict(zip(first.ramps, first.ramp_bytes, strict=False))
    return {
        "shapes": shapes,
        "active_ramps": [first.site_names[site] for site in profile.sites],
        "sites": len(first.site_names),
        "ramp_bytes": list(first.ramp_bytes),
        "active_bytes": sum(sizes.get(site, 0) for site in profile.sites),
        "parameter_bytes": parameter_bytes,
        "control": {name: control_cost(name, inputs, config) for name in ("apparate", "paper")},
    }


def control_cost(name: str, inputs: Inputs, config: StudyConfig) -> dict[str, Any]:
    """Milliseconds that a system's control takes, in a replay (JSON values).

    The first half of either kind of update is left out: programs are compiled in it.
    """
    match = _match(inputs, config, 0)
    policy = policy_of(name, match.task)
    clocked = Clocked(policy.controller)
    play_policy(Policy(clocked.timed(), policy.recording, policy.load_policy), match)
    quiet, tuning = (part[len(part) // 2 :] for part in (clocked.quiet_ms, clocked.tuning_ms))
    answers = config.requests + config.settle + config.saturated
    spent = sum(quiet) + sum(tuning)
    updates = len(quiet) + len(tuning)
    return {
        "feedback_ms": _median(quiet),
        "tuning_ms": _median(tuning),
        "tunings": len(clocked.tuning_ms),
        "batches": len(clocked.quiet_ms) + len(clocked.tuning_ms),
        "answers": answers,
        "mean_ms_per_batch": round(spent / updates, 5) if updates else None,
    }


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 5) if values else None
