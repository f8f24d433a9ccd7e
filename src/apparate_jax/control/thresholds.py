"""Threshold tuning: one interface for the exact search, beam, greedy and grid.

An answer exits at ramp ``r`` when its error is strictly below ``thresholds[r]``; a threshold of 0
never exits. The search maximises the latency saved subject to a budget of answers that differ from
the original model's, on a window of recorded samples.

Sharp edges: what is tuned to the limit on one window breaks it on the next one, most of all on
short windows and with many ramps; leave some of the budget unspent, as the controller does. The
searches run on the host's CPU, whatever device serves.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from apparate_jax.control import beam, exact, greedy, grid
from apparate_jax.errors import ConfigError

Method = Literal["exact", "beam", "greedy", "greedy-artifact", "grid", "auto"]
METHODS: tuple[Method, ...] = ("exact", "beam", "greedy", "greedy-artifact", "grid", "auto")
"""``exact`` is the optimum, ``beam`` near it where exact has too many candidates, ``auto`` exact
where it fits and else beam; ``greedy`` is the paper's search, ``greedy-artifact`` the same with the
steps of its artifact, ``grid`` its reference."""


class Tuning(NamedTuple):
    """What a search found.

    Attributes:
        thresholds: f32[R], one per ramp.
        saving: Latency saved per sample, in the unit of the savings that were given (ms).
        disagreement: Share of samples whose answer differs from the original's.
    """

    thresholds: NDArray[np.float32]
    saving: float
    disagreement: float


class Evaluation(NamedTuple):
    """What thresholds do on a window.

    Attributes:
        saving: Saved per sample, in the unit of the savings.
        disagreement: Share of samples whose answer differs from the original's.
        exit_counts: i64[R + 1], samples that leave at each ramp, and at the end.
        wrong_shares: f64[R], share of the exits at each ramp that are wrong; 0 without exits.
    """

    saving: float
    disagreement: float
    exit_counts: NDArray[np.int64]
    wrong_shares: NDArray[np.float64]


def budget_for(max_disagreement: float, samples: int) -> int:
    """How many of ``samples`` answers may be wrong: ``floor(max_disagreement * samples)``.

    Forgives rounding: 0.29 * 100 is 28.999999999999996, and 29 of 100 is 0.29.

    >>> budget_for(0.29, 100), budget_for(1 - 0.99, 512)
    (29, 5)
    """
    return math.floor(max_disagreement * samples + 1e-9)


def tune_thresholds(
    errors: ArrayLike,
    agrees: ArrayLike,
    savings: ArrayLike,
    max_disagreement: float = 0.01,
    method: Method = "exact",
) -> Tuning:
    """Thresholds that save most latency on a window within the budget of wrong answers.

    With ``e(n)`` the ramp where sample ``n`` exits, maximises ``sum_n savings[n, e(n)]`` subject to
    ``sum_n not agrees[n, e(n)] <= floor(max_disagreement * N)``.

    Args:
        errors: f32[N, R], error (1 - top probability) of each sample at each ramp, 0..1; NaN never
            exits.
        agrees: bool[N, R], whether the ramp's answer is the original's.
        savings: f32[R] or f32[N, R], ms saved against not exiting; not increasing along the ramps.
        max_disagreement: Share of answers that may differ, 0..1.
        method: One of :data:`METHODS`.

    Returns:
        Thresholds, saving per sample and disagreement on this window.

    Raises:
        ConfigError: Shapes or values out of range, an unknown method, or too many candidates.

    References:
        Apparate (SOSP'24), section 3.2, for the problem and the greedy search.

    >>> tuning = tune_thresholds(
    ...     [[0.1], [0.2], [0.4]], [[True], [True], [False]], [5.0], max_disagreement=0.01
    ... )
    >>> [round(float(t), 3) for t in tuning.thresholds], round(tuning.saving, 3)
    ([0.4], 3.333)
    """
    table, right, gains = checked(errors, agrees, savings)
    return tune_first(table, right, gains, len(table), max_disagreement, method)


def tune_first(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    samples: int,
    max_disagreement: float,
    method: Method = "exact",
) -> Tuning:
    """As :func:`tune_thresholds` on the first ``samples`` rows, of arrays known to be good.

    One compiled program serves every ``samples``: a window may be tuned while it fills.

    Args:
        errors: f32[N, R].
        agrees: bool[N, R].
        savings: f32[R] or f32[N, R].
        samples: Rows that count.
        max_disagreement: Share of those answers that may differ, 0..1.
        method: See :func:`tune_thresholds`.

    Raises:
        ConfigError: ``max_disagreement`` out of range, an unknown method, or too many candidates.
    """
    if not 0.0 <= max_disagreement <= 1.0:
        raise ConfigError(f"max_disagreement is {max_disagreement}, expected a share, 0..1")
    limits = (budget_for(max_disagreement, samples),)
    budget = budget_for(max_disagreement, len(errors))
    (thresholds,) = _search(errors, agrees, savings, samples, limits, method, budget)
    found = evaluate_first(errors, agrees, savings, samples, thresholds)
    return Tuning(thresholds, found.saving, found.disagreement)


def tune_ladder(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    samples: int,
    limits: Sequence[int],
    method: Method = "exact",
    budget: int | None = None,
) -> NDArray[np.float32]:
    """Thresholds for several limits at once, of arrays known to be good.

    The exact search shares nearly all of its work between the limits; other methods are called once
    for each. How many programs are compiled does not depend on the limits' values.

    Args:
        errors: f32[N, R].
        agrees: bool[N, R].
        savings: f32[R] or f32[N, R].
        samples: Rows that count.
        limits: K numbers of wrong answers allowed; below 0 all thresholds are 0.
        method: See :func:`tune_thresholds`.
        budget: The largest limit that will be asked for; one program is compiled for each. The
            largest of ``limits`` if None.

    Returns:
        f32[K, R].

    Raises:
        ConfigError: A limit above the budget, an unknown method, or too many candidates.

    >>> data = (np.float32([[0.1], [0.2]]), np.array([[True], [False]]), np.float32([1.0]))
    >>> tune_ladder(*data, samples=2, limits=(-1, 0, 1)).round(3).tolist()
    [[0.0], [0.20000000298023224], [1.0]]
    """
    largest = max(0, *limits) if limits else 0
    bound = largest if budget is None else budget
    if largest > bound:
        raise ConfigError(f"the largest limit is {largest}, expected at most the budget, {bound}")
    return _search(errors, agrees, savings, samples, limits, method, bound)


def evaluate_thresholds(
    errors: ArrayLike, agrees: ArrayLike, savings: ArrayLike, thresholds: ArrayLike
) -> Evaluation:
    """What thresholds save and how many answers differ on a window.

    Args:
        errors: f32[N, R].
        agrees: bool[N, R].
        savings: f32[R] or f32[N, R].
        thresholds: f32[R].

    Raises:
        ConfigError: Shapes or values out of range.

    >>> evaluate_thresholds([[0.1], [0.4]], [[True], [False]], [5.0], [0.2]).exit_counts
    array([1, 1])
    """
    table, right, gains = checked(errors, agrees, savings)
    values = np.asarray(thresholds, np.float32)
    if values.shape != table.shape[1:]:
        raise ConfigError(
            f"thresholds have shape {values.shape}, expected [{table.shape[1]}]: one per ramp"
        )
    return _evaluate(table, right, gains, values)


def evaluate_first(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    samples: int,
    thresholds: NDArray[np.float32],
) -> Evaluation:
    """As :func:`evaluate_thresholds` on the first ``samples`` rows, of arrays known to be good."""
    rows = slice(samples)
    gains = savings if savings.ndim == 1 else savings[rows]
    return _evaluate(errors[rows], agrees[rows], gains, thresholds)


def oracle_saving(agrees: ArrayLike, savings: ArrayLike) -> float:
    """Saved per sample if each left at its earliest ramp that is right: no tuner can beat it.

    Args:
        agrees: bool[N, R].
        savings: f32[R] or f32[N, R].

    Raises:
        ConfigError: Shapes or values out of range.

    >>> oracle_saving([[False, True], [False, False]], [5.0, 3.0])
    1.5
    """
    zeros = np.zeros(np.shape(agrees), np.float32)
    table, right, gains = checked(zeros, agrees, savings)
    exits = np.where(right.any(axis=1), right.argmax(axis=1), table.shape[1])
    return _mean_gain(gains, exits)


def first_exits(
    errors: NDArray[np.float32], thresholds: NDArray[np.float32] | tuple[float, ...]
) -> NDArray[np.int64]:
    """The ramp where each sample leaves: i64[N], R where it runs to the end.

    Args:
        errors: f32[N, R].
        thresholds: f32[R].
    """
    ramps = errors.shape[1]
    below = np.empty((len(errors), ramps + 1), np.bool_)
    np.less(errors, np.asarray(thresholds, np.float32), out=below[:, :ramps])
    below[:, ramps] = True
    exits: NDArray[np.int64] = below.argmax(axis=1)
    return exits


def _evaluate(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    thresholds: NDArray[np.float32],
) -> Evaluation:
    samples, ramps = errors.shape
    exits = first_exits(errors, thresholds)
    early = np.flatnonzero(exits < ramps)
    counts = np.bincount(exits, minlength=ramps + 1)
    wrong = np.bincount(exits[early][~agrees[early, exits[early]]], minlength=ramps)
    return Evaluation(
        saving=_mean_gain(savings, exits),
        disagreement=int(wrong.sum()) / max(samples, 1),
        exit_counts=counts,
        wrong_shares=wrong / np.maximum(counts[:ramps], 1),
    )


def _mean_gain(savings: NDArray[np.float32], exits: NDArray[np.int64]) -> float:
    """Mean saving of samples that leave at ``exits``, nothing at the end."""
    ramps = savings.shape[-1]
    early = np.flatnonzero(exits < ramps)
    at = exits[early]
    gains = savings[at] if savings.ndim == 1 else savings[early, at]
    return float(gains.sum(dtype=np.float64)) / max(len(exits), 1)


def _search(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    samples: int,
    limits: Sequence[int],
    method: Method,
    budget: int,
) -> NDArray[np.float32]:
    """Thresholds f32[K, R] for each limit, all of them at most ``budget``."""
    ramps = errors.shape[1]
    if method == "auto":
        fits = exact.num_candidates(budget, ramps) <= exact.MAX_CANDIDATES
        method = "exact" if fits else "beam"
    data = (errors, agrees, savings, np.int32(samples))
    allowed = np.asarray(limits, np.int32)
    with jax.default_device(host()):
        if method == "exact":
            return np.asarray(exact.ladder(*data, allowed, budget=budget))
        if method == "beam":
            found = [beam.search(*data, limit, budget=budget) for limit in allowed]
        elif method == "greedy":
            found = [greedy.climb(*data, limit, *greedy.PAPER) for limit in allowed]
        elif method == "greedy-artifact":
            found = [greedy.climb(*data, limit, *greedy.ARTIFACT) for limit in allowed]
        elif method == "grid":
            found = [grid.scan(*data, limit) for limit in allowed]
        else:
            raise ConfigError(f"method is {method!r}, expected one of {list(METHODS)}")
    return np.asarray(found, np.float32).reshape(len(allowed), ramps)


def host() -> jax.Device:
    """The CPU: tuning must not queue behind batches on the device that serves."""
    return jax.local_devices(backend="cpu")[0]


def checked(
    errors: ArrayLike, agrees: ArrayLike, savings: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """Errors, agreement and savings as arrays; a ConfigError unless they are a window."""
    table = np.asarray(errors, np.float32)
    right = np.asarray(agrees)
    gains = np.asarray(savings, np.float32)
    if table.ndim != 2 or 0 in table.shape:
        raise ConfigError(f"errors have shape {table.shape}, expected [samples, ramps]")
    if (table < 0).any() or (table > 1).any():
        raise ConfigError("errors must be 1 - top probability, 0..1, or NaN where there is none")
    if right.shape != table.shape or right.dtype != np.bool_:
        raise ConfigError(
            f"agrees are {right.dtype}{list(right.shape)}, expected bool{list(table.shape)}"
        )
    check_savings(gains, table.shape)
    return table, right, gains


def check_savings(savings: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    """Raise a ConfigError unless savings fit errors of ``shape`` and the searches' assumptions."""
    if savings.shape not in (shape[1:], shape):
        raise ConfigError(
            f"savings have shape {list(savings.shape)}, expected [{shape[1]}] (one per ramp) "
            f"or {list(shape)} (one per sample and ramp)"
        )
    rises = (savings[..., 1:] > savings[..., :-1]).any()
    if rises or not np.isfinite(savings).all() or (savings < 0).any():
        raise ConfigError(
            "savings must be finite, not negative, and not increase from ramp to ramp: "
            "a later exit cannot save more"
        )
