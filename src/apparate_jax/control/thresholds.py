"""Threshold tuning: one interface for the exact search and the paper's greedy one.

An answer exits at ramp ``r`` when its error is strictly below ``thresholds[r]``; a threshold of 0
never exits. The search maximises the latency saved subject to a budget of answers that differ from
the original model's, on a window of recorded samples.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apparate_jax.control import exact, greedy
from apparate_jax.errors import ConfigError

Method = Literal["exact", "greedy"]
METHODS: tuple[Method, ...] = ("exact", "greedy")


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
        saving: Saved per sample.
        disagreement: Share of wrong answers.
        exits: i64[R], samples that leave at each ramp.
    """

    saving: float
    disagreement: float
    exits: NDArray[np.int64]


class _Window(NamedTuple):
    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    savings: NDArray[np.float32]


def budget_for(max_disagreement: float, samples: int) -> int:
    """How many of ``samples`` answers may be wrong: ``floor(max_disagreement * samples)``.

    >>> budget_for(0.01, 300)
    3
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

    Args:
        errors: f32[N, R], error of each sample at each ramp; NaN never exits.
        agrees: bool[N, R], whether the ramp's answer is the original's.
        savings: f32[R] or f32[N, R], ms saved against not exiting; not increasing along the ramps.
        max_disagreement: Share of answers that may differ, 0..1.
        method: ``"exact"`` (the optimum) or ``"greedy"`` (the paper's search).

    Returns:
        Thresholds, saving per sample and disagreement on this window.

    Raises:
        ConfigError: Shapes or values out of range, an unknown method, or too many candidates.

    References:
        Apparate (SOSP'24), section 3.2, for the problem and the greedy search.

    >>> tuning = tune_thresholds([[0.1], [0.2], [0.4]], [[True], [True], [False]], [5.0])
    >>> [round(float(t), 3) for t in tuning.thresholds], round(tuning.saving, 3)
    ([0.4], 3.333)
    """
    window = _checked(errors, agrees, savings)
    if not 0.0 <= max_disagreement <= 1.0:
        raise ConfigError(f"max_disagreement is {max_disagreement}, expected 0..1")
    limit = budget_for(max_disagreement, len(window.errors))
    return tune_within(window.errors, window.agrees, window.savings, limit, limit, method)


def tune_within(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    limit: int,
    max_limit: int,
    method: Method = "exact",
) -> Tuning:
    """As :func:`tune_thresholds`, for a limit in answers on arrays that were checked before.

    Rows with infinite errors are empty places of a window that is not full yet: they never exit and
    do not count, and the same compiled program serves the window as it fills.

    Args:
        errors: f32[N, R].
        agrees: bool[N, R].
        savings: f32[N, R].
        limit: Wrong answers allowed.
        max_limit: Largest limit that will be asked for at this shape.
        method: See :func:`tune_thresholds`.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, expected one of {list(METHODS)}")
    safe = np.where(np.isnan(errors), np.inf, errors)
    if method == "exact":
        found = exact.search(safe, agrees, savings, np.int32(limit), budget=max_limit)
    else:
        found = greedy.climb(safe, agrees, savings, np.int32(limit))
    thresholds = np.asarray(found)
    saving, disagreement, _ = _evaluate(safe, agrees, savings, thresholds)
    return Tuning(thresholds, saving, disagreement)


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
    """
    window = _checked(errors, agrees, savings)
    values = np.asarray(thresholds, np.float32)
    if values.shape != window.errors.shape[1:]:
        raise ConfigError(
            f"{values.shape} thresholds for {window.errors.shape[1]} ramps: give one per ramp"
        )
    return _evaluate(window.errors, window.agrees, window.savings, values)


def oracle_saving(agrees: ArrayLike, savings: ArrayLike) -> float:
    """Saved per sample if each left at its earliest ramp that is right: no tuner can beat it.

    Args:
        agrees: bool[N, R].
        savings: f32[R] or f32[N, R].
    """
    right = np.asarray(agrees, bool)
    window = _checked(np.zeros(right.shape, np.float32), right, savings)
    saved = np.where(window.agrees, window.savings, 0.0).max(axis=1, initial=0.0)
    return float(saved.mean())


def _evaluate(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    thresholds: NDArray[np.float32],
) -> Evaluation:
    with np.errstate(invalid="ignore"):
        below = errors < thresholds
    first = below & (np.cumsum(below, axis=1) == 1)
    samples = max(1, int((~np.isposinf(errors).all(axis=1)).sum()))
    return Evaluation(
        saving=float(savings[first].sum(dtype=np.float64)) / samples,
        disagreement=int((first & ~agrees).sum()) / samples,
        exits=first.sum(axis=0),
    )


def _checked(errors: ArrayLike, agrees: ArrayLike, savings: ArrayLike) -> _Window:
    table = np.asarray(errors, np.float32)
    right = np.asarray(agrees)
    gains = np.asarray(savings, np.float32)
    if table.ndim != 2 or 0 in table.shape:
        raise ConfigError(f"errors have shape {table.shape}, expected [samples, ramps]")
    if right.shape != table.shape or right.dtype != np.bool_:
        raise ConfigError(
            f"agrees are {right.dtype}{list(right.shape)}, expected bool{list(table.shape)}"
        )
    if gains.shape not in (table.shape[1:], table.shape):
        raise ConfigError(
            f"savings have shape {gains.shape}, expected [{table.shape[1]}] (one per ramp) "
            f"or {list(table.shape)}"
        )
    if not np.isfinite(gains).all() or (gains < 0).any() or (np.diff(gains, axis=-1) > 0).any():
        raise ConfigError(
            "savings must be finite, not negative and not increase from ramp to ramp: "
            "a later exit cannot save more"
        )
    return _Window(table, right, np.ascontiguousarray(np.broadcast_to(gains, table.shape)))
