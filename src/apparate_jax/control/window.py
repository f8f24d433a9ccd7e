"""The last samples of feedback: error and agreement at every active ramp, and who left where.

A pure ring buffer: :func:`push` returns a new window and leaves the old one as it was; its arrays
cannot be written to. NumPy, not JAX: it grows by a few rows per batch, in microseconds.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import ConfigError


class Window(NamedTuple):
    """The last ``N`` samples; while it fills, the first ``filled`` rows hold them.

    Attributes:
        errors: f32[N, R].
        agrees: bool[N, R].
        exits: i32[N], position of the ramp that answered, R for the original model.
        filled: Samples in it, at most N.
        cursor: Row of the next sample.
    """

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    exits: NDArray[np.int32]
    filled: int
    cursor: int


def init(size: int, ramps: int) -> Window:
    """A window for ``size`` samples with nothing in it.

    Raises:
        ConfigError: If it has no place for a sample.
    """
    if size < 1:
        raise ConfigError(f"the window holds {size} samples, expected at least 1")
    window = Window(
        errors=np.ones((size, ramps), np.float32),
        agrees=np.zeros((size, ramps), np.bool_),
        exits=np.full(size, ramps, np.int32),
        filled=0,
        cursor=0,
    )
    return _frozen(window)


def push(
    window: Window,
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    exits: NDArray[np.int32],
) -> Window:
    """A window with further samples, the oldest pushed out.

    Args:
        window: The window before.
        errors: f32[n, R].
        agrees: bool[n, R].
        exits: i32[n].

    Raises:
        ConfigError: If the shapes do not fit each other or the window's ramps.
    """
    size, ramps = window.errors.shape
    shape = (len(exits), ramps)
    if errors.shape != shape or agrees.shape != shape:
        raise ConfigError(
            f"errors {list(errors.shape)}, agrees {list(agrees.shape)} and exits "
            f"{list(exits.shape)}, expected [n, {ramps}], [n, {ramps}] and [n]"
        )
    added = min(len(exits), size)
    if added == 0:
        return window
    rows = (window.cursor + np.arange(added)) % size
    new = Window(
        errors=window.errors.copy(),
        agrees=window.agrees.copy(),
        exits=window.exits.copy(),
        filled=min(window.filled + added, size),
        cursor=(window.cursor + added) % size,
    )
    new.errors[rows] = errors[-added:]
    new.agrees[rows] = agrees[-added:]
    new.exits[rows] = exits[-added:]
    return _frozen(new)


def accuracy(window: Window) -> float:
    """Share of the window's answers that equal the original model's; 1 when it is empty."""
    ramps = window.errors.shape[1]
    early = np.flatnonzero(window.exits[: window.filled] < ramps)
    right = int(np.count_nonzero(window.agrees[early, window.exits[early]]))
    return 1.0 - (len(early) - right) / max(window.filled, 1)


def _frozen(window: Window) -> Window:
    for array in (window.errors, window.agrees, window.exits):
        array.flags.writeable = False
    return window
