"""Which ramps to activate: sets of ramps and their thresholds chosen together, on one window.

A set is worth what its ramps save with the best thresholds within the limit of wrong answers, less
what they add to every answer. Every set is tried with the exact search, or where that is too much,
sets are grown (see :mod:`~apparate_jax.control.set_search`).

Sharp edges: the choice is made on the window that it is measured on, so its net flatters it; use
:func:`net_of` on other samples to compare two sets.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from apparate_jax.control import exact, set_search
from apparate_jax.control.set_search import Set
from apparate_jax.control.thresholds import checked, first_exits, host
from apparate_jax.errors import ConfigError


class Budget(NamedTuple):
    """What the active ramps may use together, of memory for example.

    Attributes:
        uses: What each ramp uses, not negative.
        most: What a set may use.
    """

    uses: Sequence[float]
    most: float


class Choice(NamedTuple):
    """A set of ramps with its thresholds, and what it does on the window.

    Attributes:
        columns: The ramps, ascending; none if no set is worth its costs.
        thresholds: f32, one for each of them.
        saving: Saved per sample, without the costs (ms).
        cost: Added to every answer (ms).
        disagreement: Share of samples whose answer differs from the original's.
        net: ``saving - cost`` (ms).
    """

    columns: Set
    thresholds: NDArray[np.float32]
    saving: float
    cost: float
    disagreement: float
    net: float


class Net(NamedTuple):
    """What a set of ramps does for each sample.

    Attributes:
        gains: f64[N], saved less the costs (ms); their mean is the set's net.
        wrong: bool[N], whether the answer differs from the original's.
    """

    gains: NDArray[np.float64]
    wrong: NDArray[np.bool_]


def choose_ramps(
    errors: ArrayLike,
    agrees: ArrayLike,
    savings: ArrayLike,
    costs: ArrayLike,
    samples: int,
    limit: int,
    *,
    max_ramps: int = 3,
    allowed: Iterable[Sequence[int]] | None = None,
    budgets: Sequence[Budget] = (),
    budget: int | None = None,
) -> Choice:
    """The set of ramps that saves most beyond its costs, with its thresholds.

    Maximises, over sets ``A`` of at most ``max_ramps`` columns and thresholds with at most
    ``limit`` wrong answers, the mean saving less ``sum_{r in A} costs[r]``. Of sets that are alike,
    the smallest is taken. Every set is tried where they are not too many (see
    :func:`~apparate_jax.control.set_search.is_quick`).

    Args:
        errors: f32[N, S], error of each sample at each site, 0..1; NaN never exits.
        agrees: bool[N, S], whether the ramp's answer is the original's.
        savings: f32[S], ms saved by an exit there; not increasing.
        costs: f32[S], ms that an active ramp adds to every answer.
        samples: Only so many of the first rows count.
        limit: Wrong answers allowed; below 0 no ramp is active.
        max_ramps: At most so many columns.
        allowed: The sets to choose from, besides none; all if None. Where they are too many to try
            each, a set is only reached through smaller ones that are allowed.
        budgets: What any set must keep to.
        budget: The largest limit that will be asked for: one program is compiled for each, and for
            each size of set, size of window and number of sites. ``limit`` if None.

    Returns:
        The best set.

    Raises:
        ConfigError: Shapes or values out of range, or too many ways to share the budget.

    >>> errors, right = np.full((4, 2), 0.1, np.float32), np.ones((4, 2), bool)
    >>> choose_ramps(errors, right, [5.0, 3.0], [4.0, 1.0], samples=4, limit=0).columns
    (1,)
    """
    table, right, gains = checked(errors, agrees, savings)
    prices = _costs(costs, gains)
    sites = table.shape[1]
    largest = min(max_ramps, sites)
    bound = max(limit, 0) if budget is None else budget
    _check(limit, bound, largest)
    if limit < 0 or largest < 1 or samples < 1:
        return _choice(table, right, gains, prices, samples, (), np.zeros(0, np.float32))
    fits = _fits(budgets, sites)
    given = None if allowed is None else _sets(allowed, sites)
    with jax.default_device(host()):
        window = set_search.prepare(table, right, gains, prices, samples, limit, bound)
        if set_search.is_quick(window, largest, given):
            found = set_search.try_all(window, largest, given, fits)
        else:
            found = set_search.grow(window, largest, given, fits)
    columns, thresholds = set_search.best_of(found, float(gains.max()))
    return _choice(table, right, gains, prices, samples, columns, thresholds)


def net_of(
    errors: ArrayLike,
    agrees: ArrayLike,
    savings: ArrayLike,
    costs: ArrayLike,
    columns: Sequence[int],
    thresholds: ArrayLike,
) -> Net:
    """What a set of ramps does for each sample: two sets are compared by their paired gains.

    Args:
        errors: f32[N, S].
        agrees: bool[N, S].
        savings: f32[S].
        costs: f32[S].
        columns: The active ramps, ascending.
        thresholds: f32, one for each of them.

    Raises:
        ConfigError: Shapes or values out of range.

    >>> net_of([[0.1], [0.4]], [[True], [False]], [5.0], [1.0], (0,), [0.2]).gains.tolist()
    [4.0, -1.0]
    """
    table, right, gains = checked(errors, agrees, savings)
    values = np.asarray(thresholds, np.float32)
    ascending = list(columns) == sorted(set(columns)) and set(columns) <= {*range(len(gains))}
    if not ascending or values.shape != (len(columns),):
        raise ConfigError(
            f"columns are {list(columns)} with {values.size} thresholds, expected ascending "
            f"columns below {len(gains)} and one threshold for each"
        )
    chosen = list(columns)
    prices = _costs(costs, gains)[chosen]
    exits = first_exits(table[:, chosen], values)
    saved = np.append(gains[chosen].astype(np.float64), 0.0)[exits]
    kept = np.append(right[:, chosen], np.ones((len(table), 1), np.bool_), axis=1)
    return Net(saved - prices.sum(), ~np.take_along_axis(kept, exits[:, None], axis=1)[:, 0])


def warm(samples: int, sites: int, budget: int, max_ramps: int = 3) -> None:
    """Compile what :func:`choose_ramps` runs, ahead of serving.

    Args:
        samples: Rows of the windows, N.
        sites: Their columns, S.
        budget: Static bound of the limits.
        max_ramps: At most so many active.

    Raises:
        ConfigError: Too many ways to share the budget.
    """
    _check(budget, budget, min(max_ramps, sites))
    shape = (samples, sites)
    zeros = np.zeros(sites)
    with jax.default_device(host()):
        data = (np.zeros(shape, np.float32), np.ones(shape, np.bool_), zeros.astype(np.float32))
        window = set_search.prepare(*data, zeros, samples, budget, budget)
        for size in range(1, min(max_ramps, sites) + 1):
            set_search.score(window, [tuple(range(size))])


def _choice(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    costs: NDArray[np.float64],
    samples: int,
    columns: Set,
    thresholds: NDArray[np.float32],
) -> Choice:
    if not columns:
        return Choice((), thresholds, 0.0, 0.0, 0.0, 0.0)
    rows = slice(samples)
    found = net_of(errors[rows], agrees[rows], savings, costs, columns, thresholds)
    net, cost = float(found.gains.mean()), float(costs[list(columns)].sum())
    return Choice(columns, thresholds, net + cost, cost, float(found.wrong.mean()), net)


def _fits(budgets: Sequence[Budget], sites: int) -> Callable[[Set], bool]:
    uses = [np.asarray(b.uses, np.float64) for b in budgets]
    for use in uses:
        if use.shape != (sites,) or not (use >= 0).all():
            raise ConfigError(f"a budget's uses are {use}, expected {sites}, none negative")
    pairs = [(use.tolist(), budget.most) for use, budget in zip(uses, budgets, strict=True)]
    return lambda columns: all(sum(use[c] for c in columns) <= most for use, most in pairs)


def _sets(allowed: Iterable[Sequence[int]], sites: int) -> list[Set]:
    sets = sorted({tuple(sorted({int(c) for c in columns})) for columns in allowed})
    if any(columns and not 0 <= columns[0] <= columns[-1] < sites for columns in sets):
        raise ConfigError(f"allowed sets have columns that are not within 0..{sites - 1}")
    return sets


def _costs(costs: ArrayLike, savings: NDArray[np.float32]) -> NDArray[np.float64]:
    prices = np.asarray(costs, np.float64)
    if savings.ndim != 1 or prices.shape != savings.shape:
        raise ConfigError(
            f"savings and costs have shapes {savings.shape} and {prices.shape}, expected one of "
            "each per site"
        )
    if not (np.isfinite(prices) & (prices >= 0)).all():
        raise ConfigError("costs must be finite and not negative")
    return prices


def _check(limit: int, budget: int, ramps: int) -> None:
    if limit > budget:
        raise ConfigError(f"the limit is {limit}, expected at most the budget, {budget}")
    ways = exact.num_candidates(budget, max(ramps, 1))
    if ways > exact.MAX_CANDIDATES:
        raise ConfigError(
            f"{ways} ways to share {budget} wrong answers over {ramps} ramps, at most "
            f"{exact.MAX_CANDIDATES} are searched: use fewer ramps or a smaller window"
        )
