"""What an early answer saves those who are not in its batch.

A batch is held behind one of its ramps, and if everybody in it has left by then the device is free
for others there (:mod:`apparate_jax.serve.deferral`). So what an exit is worth is what it saves
itself and, if it is in time for the hold, a share in the time that is freed: thresholds and sets
that are chosen for the former alone spend wrong answers on late ramps, which free nothing.

How much the freed time is worth depends on the load: in an M/D/1 queue of utilisation ``rho``,
others wait ``(2 rho - rho^2) / (2 (1 - rho)^2)`` less for each second by which all services are
shorter, 0.4 at 25 %, 1.5 at half and 3.6 at 65 %. One weight stands for it
(:attr:`~apparate_jax.control.config.ControlConfig.others`).
"""

import numpy as np
from numpy.typing import NDArray

Savings = NDArray[np.float32]


def left_by(errors: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of samples that leave at each ramp or before it.

    Args:
        errors: f32[N, R].
        thresholds: f32[R].

    Returns:
        f64[R]; all of them where there are no samples.
    """
    if not len(errors):
        return np.ones(len(thresholds))
    shares: NDArray[np.float64] = np.logical_or.accumulate(errors < thresholds, axis=1).mean(axis=0)
    return shares


def hold_of(savings_ms: Savings, left: NDArray[np.float64]) -> int | None:
    """Position of the ramp behind which a hold frees most; None where nobody leaves.

    Args:
        savings_ms: f32[R], what an exit saves: what is left of the model there.
        left: f64[R], share of inputs that leave at each ramp or before it.

    >>> hold_of(np.array([8, 4, 1], np.float32), np.array([0.1, 0.6, 0.9]))
    1
    """
    return int(np.argmax(savings_ms * left)) if left.any() else None


def with_others(savings_ms: Savings, hold: int | None, weight: float) -> Savings:
    """What an exit at each ramp saves, and saves others.

    Args:
        savings_ms: f32[R], what it saves itself.
        hold: Position of the ramp behind which batches are held, None if they are not.
        weight: What a freed ms is worth.

    Returns:
        f32[R], not increasing where ``savings_ms`` is not.

    >>> with_others(np.array([8, 4, 1], np.float32), 1, 0.5)
    array([10.,  6.,  1.], dtype=float32)
    """
    if hold is None or weight <= 0.0:
        return savings_ms
    in_time = np.arange(len(savings_ms)) <= hold
    return savings_ms + np.where(in_time, weight * savings_ms[hold], 0.0).astype(np.float32)
