"""Search over sets of ramps: the exact tuning of each of many sets, all of them or grown.

The window is sorted once for all sets (see :mod:`~apparate_jax.control.prefixes`), and sets of one
size are tuned in chunks of one shape, so that one compiled program for each size serves any number
of them. Memory is bounded by the chunk. Where all sets are too many, they grow from the best few of
one ramp less, and at the end ramps are exchanged, added and dropped as long as that gains.

Sharp edges: growth is not exact. On 320 synthetic windows on which all sets can be tried (12 and 33
sites, at most 3 or 5 active) it found the best set every time (benchmarks/results/subsets.json).
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32
from numpy.typing import NDArray

from apparate_jax.control import bitmask, exact
from apparate_jax.control import prefixes as px
from apparate_jax.control.prefixes import Order

MAX_WORK = 100_000_000
"""Sets x ways to share the budget x words of 32 samples; above it, sets are grown."""

MAX_SETS = 50_000
"""More sets than this are not tried one by one."""

WIDTH = 8
"""Sets that growth keeps of each size."""

_ROWS = 8192
_CHUNK = 64
_ALIKE = 1e-6

Set = tuple[int, ...]


class Window(NamedTuple):
    """A window made ready: what every set's score needs; savings and costs in ms."""

    order: Order
    savings: NDArray[np.float32]
    costs: NDArray[np.float64]
    samples: np.int32
    limit: np.int32
    budget: int


class Scores(NamedTuple):
    """The sets of one size: their nets, and the thresholds that reach them."""

    sets: NDArray[np.int32]
    nets: NDArray[np.float64]
    thresholds: NDArray[np.float32]


@jax.jit
def _order(errors: Float32[Array, "n s"], agrees: Bool[Array, "n s"]) -> Order:
    return px.order_of(errors, agrees)


@partial(jax.jit, static_argnames="budget")
def _tune(
    order: Order,
    savings: Float32[Array, " s"],
    samples: Int32[Array, ""],
    limit: Int32[Array, ""],
    sets: Int32[Array, "m r"],
    budget: int,
) -> tuple[Float32[Array, " m"], Float32[Array, "m r"]]:
    """The exact search for each set: what it saves in total, and its thresholds."""
    size, ramps = order.keys.shape[1] - 1, sets.shape[1]
    levels, used = exact.plan(budget, ramps)
    rest = limit - used

    def one(columns: Int32[Array, " r"]) -> tuple[jax.Array, jax.Array]:
        gains = savings[columns]
        steps = px.steps_of(gains)
        prefixes = start = px.start(size, samples)
        for r, level in enumerate(levels):
            prefixes = px.extend(prefixes, order, columns[r], steps[r], level.parent, level.wrong)
        whole = px.extend(prefixes, order, columns[-1], steps[-1], slice(None), rest)
        best = px.best_of(whole, rest >= 0)
        found = px.thresholds_of(order.keys[columns], whole.positions[best])
        saved = bitmask.weigh(start.staying, gains[0])[0] - whole.missed[best]
        return saved, px.closed_where_useless(found, gains)

    return jax.vmap(one)(sets)


def prepare(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    costs: NDArray[np.float64],
    samples: int,
    limit: int,
    budget: int,
) -> Window:
    """Sort a window: f32[N, S], bool[N, S], f32[S] and f64[S], of which ``samples`` rows count."""
    order = _order(errors, agrees)
    return Window(order, savings, costs, np.int32(samples), np.int32(limit), budget)


def score(window: Window, sets: Sequence[Set]) -> Scores:
    """Score sets of one size, in chunks of one shape: so one program serves any number of them."""
    table = np.asarray(sets, np.int32)
    ways = exact.num_candidates(window.budget, table.shape[1])
    chunk = max(1, min(_CHUNK, _ROWS // ways))
    padded = np.pad(table, ((0, -len(table) % chunk), (0, 0)), mode="edge")
    data = (window.order, window.savings, window.samples, window.limit)
    found = [
        _tune(*data, padded[first : first + chunk], budget=window.budget)
        for first in range(0, len(padded), chunk)
    ]
    saved = np.concatenate([np.asarray(s, np.float64) for s, _ in found])[: len(table)]
    thresholds = np.concatenate([np.asarray(t) for _, t in found])[: len(table)]
    nets = saved / float(window.samples) - window.costs[table].sum(axis=1)
    return Scores(table, nets, thresholds)


def is_quick(window: Window, max_ramps: int, allowed: Sequence[Set] | None) -> bool:
    """Whether every set can be tried: within :data:`MAX_WORK` and :data:`MAX_SETS`."""
    sites, words = len(window.savings), window.order.wrong.shape[1]
    work = total = 0
    for size in range(1, max_ramps + 1):
        if allowed is None:
            sets = math.comb(sites, size)
        else:
            sets = sum(len(a) == size for a in allowed)
        total += sets
        work += sets * exact.num_candidates(window.budget, size) * words
    return work <= MAX_WORK and total <= MAX_SETS


def try_all(
    window: Window,
    max_ramps: int,
    allowed: Sequence[Set] | None,
    fits: Callable[[Set], bool],
) -> list[Scores]:
    """Score every set of at most ``max_ramps`` that is allowed and fits."""
    sites = range(len(window.savings))
    found = []
    for size in range(1, max_ramps + 1):
        all_sets = itertools.combinations(sites, size) if allowed is None else allowed
        sets = [s for s in all_sets if len(s) == size and fits(s)]
        if sets:
            found.append(score(window, sets))
    return found


def grow(
    window: Window,
    max_ramps: int,
    allowed: Sequence[Set] | None,
    fits: Callable[[Set], bool],
) -> list[Scores]:
    """Grow the best sets by one ramp at a time, then change the best of all while that gains."""
    known = None if allowed is None else set(allowed)
    sites = range(len(window.savings))
    seen: set[Set] = set()
    found: list[Scores] = []

    def attempt(sets: Iterable[Set]) -> None:
        new = {s for s in sets if fits(s) and (known is None or s in known)} - seen
        seen.update(new)
        for size in sorted({len(s) for s in new} - {0}):
            found.append(score(window, sorted(s for s in new if len(s) == size)))

    kept: list[Set] = [()]
    for size in range(1, max_ramps + 1):
        attempt({tuple(sorted({*k, c})) for k in kept for c in sites if c not in k})
        grown = [scores for scores in found if scores.sets.shape[1] == size]
        if not grown:
            break
        (last,) = grown
        kept = [_columns(row) for row in last.sets[np.argsort(-last.nets)[:WIDTH]]]
    tolerance = float(window.savings.max())
    best: Set = ()
    while (better := best_of(found, tolerance)[0]) != best:
        best = better
        attempt(s for s in _changed(best, sites) if len(s) <= max_ramps)
    return found


def _changed(columns: Set, sites: Iterable[int]) -> set[Set]:
    """Sets with one ramp exchanged, dropped or added."""
    fewer = [tuple(c for c in columns if c != out) for out in columns]
    more = {tuple(sorted({*base, c})) for base in (*fewer, columns) for c in sites}
    return {*fewer, *more}


def best_of(found: Sequence[Scores], unit: float) -> tuple[Set, NDArray[np.float32]]:
    """The set of largest net, if it is above 0; of those alike, the first of the smallest."""
    most = max((float(scores.nets.max()) for scores in found), default=0.0)
    if most > _ALIKE * unit:
        for scores in sorted(found, key=lambda s: s.sets.shape[1]):
            near = np.flatnonzero(scores.nets >= most - _ALIKE * unit)
            if len(near):
                return _columns(scores.sets[near[0]]), scores.thresholds[near[0]]
    return (), np.zeros(0, np.float32)


def _columns(row: NDArray[np.int32]) -> Set:
    return tuple(int(c) for c in row)
