"""Studies of control alone: what each promise keeps and holds, and how good searches are.

Kept is the service time that exits save, as a share of what the best constant thresholds with
hindsight save on the same stream with the same ramps: what a policy loses by not knowing the
future, and by what it promises.
"""

import time
from dataclasses import replace

import numpy as np

from apparate_jax.bench.baselines import Policy
from apparate_jax.bench.compare import figures, play_policy, prepare
from apparate_jax.bench.one_time import data_of
from apparate_jax.bench.recording import concatenate
from apparate_jax.bench.replayed import policy as our_policy
from apparate_jax.bench.streams import order
from apparate_jax.bench.study import (
    Inputs,
    Progress,
    Row,
    StudyConfig,
    mean_saving,
    replayed,
    stream_task,
    usual,
)
from apparate_jax.control.config import PROMISES
from apparate_jax.control.load import always
from apparate_jax.control.thresholds import Method, evaluate_thresholds, tune_thresholds

GUARD = (
    ("kept_frac", "saving kept of hindsight's, %"),
    ("disagreement", "disagreement, %"),
    ("windows_below_constraint", "512-windows below the constraint, %"),
)
TUNER = (
    ("of_exact_frac", "saving, % of the exact optimum's"),
    ("next_disagreement", "disagreement on the next window, %"),
    ("search_ms", "time of one search, ms"),
)
SEARCHES: tuple[Method, ...] = ("exact", "beam", "greedy", "greedy-artifact", "grid")
WINDOWS = (512, 1024, 2048)
TIMED = 3


def guard(inputs: Inputs, config: StudyConfig, progress: Progress | None) -> list[Row]:
    """Each promise on the same streams; the ramps stay, so that hindsight has the same ones."""
    rows: list[Row] = []
    for seed in range(config.seeds):
        task = stream_task(inputs, usual(config), config, seed)
        stream = task.ours.stream
        bench = replayed(config, config.load_frac, config.arrivals, seed)
        match = prepare(task, bench, trace=inputs.trace)
        sites = stream.profile.sites
        data = data_of(stream, sites)
        best = tune_thresholds(*data, task.eps, "auto").saving
        places = {site: position for position, site in enumerate(sites)}
        for done, promise in enumerate(PROMISES, 1):
            control = replace(task.control, promise=promise, policy="fixed")
            policy = Policy(our_policy(stream, control, task.placement), stream, always)
            played = play_policy(policy, match)
            exits = np.array([places.get(s, len(sites)) for s in played.answers.exits.tolist()])
            kept = mean_saving(exits, data.savings) / best if best > 0 else None
            rows.append(
                {
                    "setting": config.stream,
                    "system": promise,
                    "seed": seed,
                    "kept_frac": kept,
                    **figures(played, match),
                }
            )
            if progress is not None:
                progress(seed * len(PROMISES) + done, config.seeds * len(PROMISES), promise)
    return rows


def tuner(inputs: Inputs, config: StudyConfig, progress: Progress | None) -> list[Row]:
    """Each search on windows of the stream, and what its thresholds do on the next window."""
    whole = concatenate(inputs.traces)
    sites, eps = whole.profile.sites, 1.0 - config.accuracy
    rows: list[Row] = []
    for seed in range(config.seeds):
        for done, size in enumerate(WINDOWS, 1):
            stream = whole.reorder(order(config.stream, whole, 2 * size, seed=seed))
            now, later = (
                data_of(stream.slice(0, size), sites),
                data_of(stream.slice(size, 2 * size), sites),
            )
            exact = tune_thresholds(*now, eps, "exact").saving
            for method in SEARCHES:
                found = tune_thresholds(*now, eps, method)
                start = time.perf_counter()
                for _ in range(TIMED):
                    tune_thresholds(*now, eps, method)
                took_ms = (time.perf_counter() - start) / TIMED * 1e3
                after = evaluate_thresholds(*later, found.thresholds)
                rows.append(
                    {
                        "setting": str(size),
                        "system": method,
                        "seed": seed,
                        "of_exact_frac": found.saving / exact if exact > 0 else None,
                        "disagreement": found.disagreement,
                        "next_disagreement": after.disagreement,
                        "search_ms": took_ms,
                    }
                )
            if progress is not None:
                progress(seed * len(WINDOWS) + done, config.seeds * len(WINDOWS), str(size))
    return rows
