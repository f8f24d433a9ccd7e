"""Studies: the paper's experiments as small tables of settings, systems and seeds, on replay.

Every cell replays a stream made of recordings; figures are means over the seeds, and the worst
disagreement of any. Thresholds that are tuned once see the first tenth of the first recording; the
stream is drawn from the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.baselines import SAMPLE_FRAC, Task, check_names, task_of
from apparate_jax.bench.compare import figures, play, prepare
from apparate_jax.bench.recording import Recording, concatenate
from apparate_jax.bench.replay import ReplayConfig
from apparate_jax.bench.replayed import ReplayedConfig
from apparate_jax.bench.streams import STREAMS, order
from apparate_jax.bench.two_layer import Small, prefix_of
from apparate_jax.bench.workload import Times, check_load
from apparate_jax.control.config import ControlConfig
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve.engine import EngineConfig

Row = dict[str, Any]
Progress = Callable[[int, int, str], None]
SMALL_DEPTH = 1 / 3
"""Depth of the first layers that stand in for a small model."""


@dataclass(frozen=True, slots=True)
class StudyConfig:
    """What all cells of a study share, unless it is what the study varies.

    Attributes:
        stream: One of :data:`apparate_jax.bench.streams.STREAMS`.
        load_frac: Mean arrival rate, as a share of the original's throughput.
        rate_rps: Requests per second instead, as of a camera; not used where the load is studied.
        arrivals: ``"poisson"`` or ``"fixed"``; not used with a trace.
        requests: At that load.
        settle: Requests before them, that count for agreement only.
        saturated: Requests from which throughput is taken.
        seeds: Runs of each cell, with other arrivals and another stream.
        accuracy: The constraint.
        ramp_budget: What ramps may add to the worst-case latency, as a share.
        systems: Instead of the study's own; None for those.
    """

    stream: str = "independent"
    load_frac: float = 0.4
    arrivals: str = "poisson"
    requests: int = 8000
    settle: int = 512
    saturated: int = 4096
    seeds: int = 3
    accuracy: float = 0.99
    ramp_budget: float = 0.02
    systems: tuple[str, ...] | None = None
    rate_rps: float | None = None

    def __post_init__(self) -> None:
        check_load(self.load_frac, self.rate_rps)
        if self.stream not in STREAMS:
            raise ConfigError(f"the stream is {self.stream!r}, expected one of {list(STREAMS)}")
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}, expected at least 1 run of each cell")
        if self.systems is not None:
            check_names(self.systems)


class Pattern(NamedTuple):
    """When requests arrive, by a name.

    Attributes:
        name: What people call it.
        times: Of a trace, brought to the rate; None to draw them, ``name`` being the kind.
    """

    name: str
    times: Times | None = None


class Inputs(NamedTuple):
    """What a study is made on.

    Attributes:
        traces: Recordings, in order; a stream goes from one to the next.
        heavy: DeeBERT's ramps on the rows of all of them, or None.
        trace: Arrival times, or None to draw them.
        patterns: Arrivals that the study of arrivals holds against Poisson's.
    """

    traces: tuple[Recording, ...]
    heavy: Recording | None = None
    trace: Times | None = None
    patterns: tuple[Pattern, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting of a study.

    Attributes:
        setting: What people call it.
        control: Settings of our controller.
        placement: Budgets.
        load_frac: Mean arrival rate, as a share of the original's throughput.
        engine: Limits of the engine.
        max_batch: The largest batch shape that is used; None for all.
        traces: Which of the inputs' recordings; None for all of them, one after the other.
        pattern: When requests arrive; None for as the study's settings and inputs say.
    """

    setting: str
    control: ControlConfig
    placement: PlacementConfig
    load_frac: float
    engine: EngineConfig = field(default_factory=EngineConfig)
    max_batch: int | None = None
    traces: tuple[int, ...] | None = None
    pattern: Pattern | None = None


def usual(config: StudyConfig) -> Cell:
    """The setting in which a study changes one thing at a time."""
    return Cell(
        "",
        ControlConfig(accuracy=config.accuracy),
        PlacementConfig(ramp_budget=config.ramp_budget),
        config.load_frac,
    )


def replayed(config: StudyConfig, load_frac: float, kind: str, seed: int) -> ReplayedConfig:
    """Settings of one run of a cell."""
    counts = (config.requests, config.settle, config.saturated)
    return ReplayedConfig(load_frac, kind, *counts, seed, config.rate_rps)


def stream_task(inputs: Inputs, cell: Cell, config: StudyConfig, seed: int) -> Task:
    """The stream of a cell: its rows, what may be tuned on, and what stands in for others."""
    chosen = inputs.traces
    if cell.traces is not None:
        chosen = tuple(inputs.traces[index] for index in cell.traces)
    whole = concatenate(chosen)
    if cell.max_batch is not None:
        shapes = tuple(s for s in whole.profile.shapes if s.batch <= cell.max_batch)
        whole = replace(whole, profile=replace(whole.profile, shapes=shapes))
    first = len(whole) if config.stream == "recorded" else len(chosen[0])
    sample = max(1, round(SAMPLE_FRAC * first))
    count = config.requests + config.settle
    heavy = inputs.heavy if cell.traces is None else None
    return task_of(
        whole,
        cell.engine.suited(cell.control),
        cell.placement,
        heavy=heavy,
        small=small_for(whole),
        rows=order(config.stream, whole, count, sample, seed),
        sample=sample,
        seed=seed,
    )


def small_for(recording: Recording) -> Small:
    """The model's own first third with its ramp, where no small model was recorded."""
    depths = [abs(recording.depths[site] - SMALL_DEPTH) for site in recording.ramps]
    return prefix_of(recording, recording.ramps[int(np.argmin(depths))])


def run_cells(
    cells: Sequence[Cell],
    systems: Sequence[str],
    inputs: Inputs,
    config: StudyConfig,
    progress: Progress | None = None,
) -> list[Row]:
    """Every system in every cell with every seed: a row each.

    Args:
        cells: Settings.
        systems: Names.
        inputs: Recordings.
        config: What cells share.
        progress: Called with cells done, in total, and what is done.

    Raises:
        QueueFullError: A system falls behind its arrivals by more than the queue holds.
    """
    rows: list[Row] = []
    total = len(cells) * config.seeds
    for seed in range(config.seeds):
        for done, cell in enumerate(cells, 1):
            pattern = cell.pattern or Pattern(config.arrivals, inputs.trace)
            kind = pattern.name if pattern.times is None else config.arrivals
            bench = replayed(config, cell.load_frac, kind, seed)
            task = stream_task(inputs, cell, config, seed)
            match = prepare(task, bench, ReplayConfig(cell.engine, seed=seed), pattern.times)
            for name in systems:
                found = figures(play(name, match), match)
                rows.append({"setting": cell.setting, "system": name, "seed": seed, **found})
            if progress is not None:
                progress(seed * len(cells) + done, total, cell.setting)
    return rows


def means(rows: Sequence[Row]) -> list[Row]:
    """One row for each setting and system: means over the seeds, and the worst disagreement."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["setting"], row["system"]), []).append(row)
    return [_mean(setting, system, group) for (setting, system), group in groups.items()]


def _mean(setting: str, system: str, rows: list[Row]) -> Row:
    out: Row = {"setting": setting, "system": system, "runs": len(rows)}
    for key in rows[0]:
        if key not in ("setting", "system", "seed"):
            values = [row[key] for row in rows]
            missing = any(value is None for value in values)
            out[key] = None if missing else round(float(np.mean(values)), 5)
    if "disagreement" in rows[0]:
        out["worst_disagreement"] = round(max(row["disagreement"] for row in rows), 5)
    return out


def head_to_head(rows: Sequence[Row], one: str, other: str, key: str) -> dict[str, Any]:
    """A figure of two systems, seed by seed on the same streams and arrivals (JSON values).

    Args:
        rows: Of one setting, a row for each system and seed.
        one: A system.
        other: The one that it is held against.
        key: The figure.

    Returns:
        Both systems' figures by seed, the least difference and how often it is above 0, and the
        mean of what ``one`` has more as a share of the other's (None if that is ever 0 or less).
    """
    by_seed = {
        name: {row["seed"]: float(row[key]) for row in rows if row["system"] == name}
        for name in (one, other)
    }
    seeds = sorted(by_seed[one].keys() & by_seed[other].keys())
    ours, theirs = (np.array([by_seed[name][seed] for seed in seeds]) for name in (one, other))
    more = ours - theirs
    relative = float((more / theirs).mean()) if (theirs > 0).all() else None
    return {
        "key": key,
        "seeds": len(seeds),
        one: ours.tolist(),
        other: theirs.tolist(),
        "least_difference": round(float(more.min()), 5),
        "mean_difference": round(float(more.mean()), 5),
        "seeds_above": int((more > 0).sum()),
        "mean_relative_difference": None if relative is None else round(relative, 5),
    }


def mean_saving(
    exits: NDArray[np.int64], savings: NDArray[np.float32] | Mapping[int, float]
) -> float:
    """Mean of what exits save, nothing at the end."""
    gains = np.append(np.asarray(savings, np.float64), 0.0)
    return float(gains[exits].mean())
