"""The last samples of feedback: errors and agreement of every active ramp.

A pure ring buffer: :func:`push` returns a new window and leaves the old one as it was.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import ConfigError


class Window(NamedTuple):
    """The last ``N`` samples; empty places have infinite errors, so they never exit.

    Attributes:
        errors: f32[N, R].
        agrees: bool[N, R].
        filled: Samples in it, at most N.
        cursor: Where the next sample goes.
    """

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    filled: int
    cursor: int


def empty(size: int, ramps: int) -> Window:
    """A window of ``size`` samples with nothing in it."""
    if size < 1 or ramps < 0:
        raise ConfigError(f"window of {size} samples and {ramps} ramps, expected at least 1 and 0")
    return Window(
        np.full((size, ramps), np.inf, np.float32), np.zeros((size, ramps), np.bool_), 0, 0
    )


def push(window: Window, errors: NDArray[np.float32], agrees: NDArray[np.bool_]) -> Window:
    """A window with further samples, the oldest pushed out.

    Args:
        window: The window before.
        errors: f32[n, R].
        agrees: bool[n, R].
    """
    size = len(window.errors)
    if errors.shape[1:] != window.errors.shape[1:] or errors.shape != agrees.shape:
        raise ConfigError(
            f"errors {list(errors.shape)} and agrees {list(agrees.shape)}, expected "
            f"[n, {window.errors.shape[1]}] both"
        )
    added = min(len(errors), size)
    rows = (window.cursor + np.arange(added)) % size
    new_errors, new_agrees = window.errors.copy(), window.agrees.copy()
    new_errors[rows] = errors[-added:] if added else errors[:0]
    new_agrees[rows] = agrees[-added:] if added else agrees[:0]
    return Window(
        new_errors,
        new_agrees,
        min(size, window.filled + added),
        int((window.cursor + added) % size),
    )
