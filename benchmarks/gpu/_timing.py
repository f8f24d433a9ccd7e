"""Timing of answers that come one after the other, in turns; and the figures that are kept."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.serve.programs import Programs

Times = NDArray[np.float64]
Dispatch = Callable[[], Iterable[jax.Array]]
"""Queues programs; gives packed answers in the order in which they come."""


def answer_times(dispatch: Dispatch) -> list[float]:
    """Milliseconds from dispatch to each answer on the host."""
    start = time.perf_counter()
    times = []
    for answer in list(dispatch()):
        np.asarray(answer)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def in_turns(fns: Mapping[str, Callable[[], list[float]]], rounds: int) -> dict[str, Times]:
    """Run functions that time themselves in turn, after two warm-up calls each.

    Returns:
        f64[rounds, k] by name, k numbers of one call; rows of the same round are paired.
    """
    for fn in fns.values():
        fn()
        fn()
    rows: dict[str, list[list[float]]] = {name: [] for name in fns}
    for turn in range(rounds):
        for name in list(fns)[:: 1 if turn % 2 == 0 else -1]:
            rows[name].append(fns[name]())
    return {name: np.asarray(values) for name, values in rows.items()}


def route_of(
    programs: Programs, sites: Sequence[int], inputs: Sequence[jax.Array], batch: int
) -> Dispatch:
    """Dispatch of the programs that would serve now."""
    route = programs.route(tuple(sites), batch)
    return lambda: route.dispatch(programs.ramp_params, inputs)


def medians(values: Times) -> list[float]:
    """Of each column, to a microsecond."""
    return [round(float(v), 3) for v in np.median(values, axis=0)]


def ratio(values: Times, base: Times) -> float:
    """The median of the rounds' ratios."""
    return round(float(np.median(values / base)), 4)


def staged(times: Mapping[str, Times], base: str) -> dict[str, Any]:
    """Per name: when each answer came, and the last one's time over that of ``base``.

    Args:
        times: f64[rounds, answers] in ms.
        base: Whose last answer is 1.
    """
    return {
        name: {
            "answers_ms": medians(values),
            "first_frac": round(float(np.median(values[:, 0] / values[:, -1])), 4),
            "ratio": ratio(values[:, -1], times[base][:, -1]),
        }
        for name, values in times.items()
    }
