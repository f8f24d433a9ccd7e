"""A ladder of thresholds: one set for each budget of wrong answers, from nothing to one and a half.

One search gives all of them. Which step is in force is the guard's choice, batch by batch, without
a search.
"""

import bisect
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control.bounds import trusted_budgets
from apparate_jax.control.config import ControlConfig, Promise
from apparate_jax.control.thresholds import Tuning, evaluate_first, tune_ladder
from apparate_jax.control.window import Window

LEVELS: dict[Promise, tuple[float, ...]] = {
    "long-run": tuple(i / 8 for i in range(11)),
    "window": tuple(i / 16 for i in range(13)),
    "none": (0.0, 1.0),
}
"""Budgets of the steps, as shares of the constraint; at step 0 nothing exits. A window's guard
never asks for more than three quarters, in finer steps."""
DOUBT = 0.5
"""Chance, at most, that a step's true rate is above its budget, were it not tuned on the samples
that say so; the guard's credit sees to the rest."""


class Ladder(NamedTuple):
    """Thresholds for K levels at R ramps.

    Attributes:
        levels: Budgets as shares of the constraint, ascending from 0.
        thresholds: K tuples of R.
        savings_ms: Saved per sample of the window, per level.
        disagreement: Share of wrong answers on the window, per level.
        wrong_shares: Wrong exits of all exits on the window, K tuples of R.
    """

    levels: tuple[float, ...]
    thresholds: tuple[tuple[float, ...], ...]
    savings_ms: tuple[float, ...]
    disagreement: tuple[float, ...]
    wrong_shares: tuple[tuple[float, ...], ...]


def closed(ramps: int) -> Ladder:
    """The ladder of one step, at which nothing exits."""
    return Ladder((0.0,), ((0.0,) * ramps,), (0.0,), (0.0,), ((0.0,) * ramps,))


def step_for(found: Ladder, level: float) -> int:
    """The highest step that asks for no more than a level.

    >>> step_for(closed(3), 0.8)
    0
    """
    return bisect.bisect_right(found.levels, level + 1e-9) - 1


def tune(
    config: ControlConfig,
    window: Window,
    savings_ms: NDArray[np.float32],
    worth_ms: NDArray[np.float32] | None = None,
) -> Ladder:
    """Thresholds for every level of the promise.

    Args:
        config: Settings.
        window: Settled feedback.
        savings_ms: f32[R], what an exit at each ramp saves.
        worth_ms: f32[R], what it is worth, others included: what thresholds are tuned for;
            ``savings_ms`` if None.
    """
    levels = LEVELS[config.promise]
    rates = np.asarray(levels) * config.max_disagreement
    most = max_budget(config)
    limits = np.minimum(trusted_budgets(window.filled, rates, DOUBT), most).tolist()
    limits[0] = -1
    data = (window.errors, window.agrees, savings_ms, window.filled)
    worth = savings_ms if worth_ms is None else worth_ms
    given = (window.errors, window.agrees, worth, window.filled)
    table = tune_ladder(*given, limits, config.method, most)
    found = [evaluate_first(*data, row) for row in table]
    return Ladder(
        levels,
        tuple(tuple(row) for row in table.tolist()),
        tuple(one.saving for one in found),
        tuple(one.disagreement for one in found),
        tuple(tuple(one.wrong_shares.tolist()) for one in found),
    )


def max_budget(config: ControlConfig) -> int:
    """The largest budget that a ladder is ever tuned for: one program serves all smaller ones."""
    most = LEVELS[config.promise][-1] * config.max_disagreement
    return int(np.ceil(most * config.samples))


def tuning(found: Ladder, step: int) -> Tuning:
    """What a step does on its window."""
    return Tuning(
        np.asarray(found.thresholds[step], np.float32),
        found.savings_ms[step],
        found.disagreement[step],
    )
