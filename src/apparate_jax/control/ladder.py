"""A ladder of thresholds: one set for each budget of wrong answers, from nothing to one and a half.

One search gives all of them. Which step is in force is the guard's choice, batch by batch, without
a search.
"""

import bisect
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control.config import ControlConfig
from apparate_jax.control.thresholds import Tuning, evaluate_first, tune_ladder
from apparate_jax.control.window import Window

LEVELS = (*(i / 16 for i in range(13)), 0.875, 1.0, 1.125, 1.25, 1.5)
"""Budgets of the steps, as shares of the constraint; at step 0 nothing exits."""
DOUBT = 0.5
"""Chance, at most, that a step's true rate is above its budget, were it not tuned on the samples
that say so; the guard's credit sees to the rest."""


class Ladder(NamedTuple):
    """Thresholds for every level, K of them, at R ramps.

    Attributes:
        thresholds: K tuples of R.
        savings_ms: Saved per sample of the window, per level.
        disagreement: Share of wrong answers on the window, per level.
        wrong_shares: Wrong exits of all exits on the window, K tuples of R.
    """

    thresholds: tuple[tuple[float, ...], ...]
    savings_ms: tuple[float, ...]
    disagreement: tuple[float, ...]
    wrong_shares: tuple[tuple[float, ...], ...]


def closed(ramps: int) -> Ladder:
    """The ladder at which nothing exits."""
    nothing = ((0.0,) * ramps,) * len(LEVELS)
    return Ladder(nothing, (0.0,) * len(LEVELS), (0.0,) * len(LEVELS), nothing)


def step_for(level: float) -> int:
    """The highest step that asks for no more than a level.

    >>> step_for(0.0), step_for(0.6), step_for(9.0)
    (0, 9, 17)
    """
    return bisect.bisect_right(LEVELS, level + 1e-9) - 1


def tune(
    config: ControlConfig,
    window: Window,
    savings_ms: NDArray[np.float32],
    budgets: NDArray[np.int64],
) -> Ladder:
    """Thresholds for every level.

    Args:
        config: Settings.
        window: Settled feedback.
        savings_ms: f32[R], what an exit at each ramp saves.
        budgets: i64[K], wrong answers that each level may show on the window; below 0: nothing
            exits.
    """
    most = max_budget(config)
    limits = np.minimum(budgets, most).tolist()
    limits[0] = -1
    table = tune_ladder(
        window.errors, window.agrees, savings_ms, window.filled, limits, config.method, most
    )
    found = [
        evaluate_first(window.errors, window.agrees, savings_ms, window.filled, row)
        for row in table
    ]
    return Ladder(
        tuple(tuple(row) for row in table.tolist()),
        tuple(one.saving for one in found),
        tuple(one.disagreement for one in found),
        tuple(tuple(one.wrong_shares.tolist()) for one in found),
    )


def max_budget(config: ControlConfig) -> int:
    """The largest budget that a ladder is ever tuned for."""
    return int(np.ceil(LEVELS[-1] * config.max_disagreement * config.samples))


def tuning(found: Ladder, step: int) -> Tuning:
    """What a step does on its window."""
    return Tuning(
        np.asarray(found.thresholds[step], np.float32),
        found.savings_ms[step],
        found.disagreement[step],
    )
