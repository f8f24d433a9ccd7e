"""The last samples of feedback: error and agreement at every ramp, and the batch shape.

Pure: :func:`push` returns a new window and leaves the old one as it was. A batch is only put aside
(a few microseconds, on the serving path); :func:`settle` moves what was put aside into the ring,
once per tuning. NumPy, not JAX: it grows by a few rows at a time.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import ConfigError


class Rows(NamedTuple):
    """Feedback of ``n`` samples at ``R`` ramps.

    Attributes:
        errors: f32[n, R].
        agrees: bool[n, R].
        shape: Padded size of the batch that they were part of.
    """

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    shape: int


class Window(NamedTuple):
    """The last ``N`` samples; while it fills, the first ``filled`` rows hold them.

    Attributes:
        errors: f32[N, R].
        agrees: bool[N, R].
        shapes: i32[N], batch shape of each.
        filled: Samples in the ring, at most N.
        cursor: Row of the next sample.
        aside: Batches that are not in the ring yet, in order.
    """

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    shapes: NDArray[np.int32]
    filled: int
    cursor: int
    aside: tuple[Rows, ...] = ()


def init(size: int, ramps: int) -> Window:
    """A window for ``size`` samples with nothing in it.

    Raises:
        ConfigError: If it has no place for a sample.
    """
    if size < 1:
        raise ConfigError(f"the window holds {size} samples, expected at least 1")
    return _frozen(
        Window(
            errors=np.ones((size, ramps), np.float32),
            agrees=np.zeros((size, ramps), np.bool_),
            shapes=np.ones(size, np.int32),
            filled=0,
            cursor=0,
        )
    )


def push(window: Window, rows: Rows) -> Window:
    """A window with further samples, the oldest pushed out once they are settled.

    Raises:
        ConfigError: If the shapes do not fit each other or the window's ramps.
    """
    ramps = window.errors.shape[1]
    if rows.errors.shape != rows.agrees.shape or rows.errors.shape[1:] != (ramps,):
        raise ConfigError(
            f"errors {list(rows.errors.shape)} and agrees {list(rows.agrees.shape)}, expected "
            f"[n, {ramps}] both"
        )
    return window._replace(aside=(*window.aside, rows))


def settle(window: Window) -> Window:
    """The same samples, all of them in the ring.

    Raises:
        ConfigError: If an error is no share.
    """
    if not window.aside:
        return window
    size = len(window.errors)
    errors = np.concatenate([rows.errors for rows in window.aside])[-size:]
    agrees = np.concatenate([rows.agrees for rows in window.aside])[-size:]
    shapes = np.repeat(
        [rows.shape for rows in window.aside], [len(rows.errors) for rows in window.aside]
    )[-size:]
    if (errors < 0).any() or (errors > 1).any():
        raise ConfigError("errors must be 1 - top probability, 0..1, or NaN where there is none")
    at = (window.cursor + np.arange(len(errors))) % size
    new = Window(
        errors=window.errors.copy(),
        agrees=window.agrees.copy(),
        shapes=window.shapes.copy(),
        filled=min(window.filled + len(errors), size),
        cursor=(window.cursor + len(errors)) % size,
    )
    new.errors[at] = errors
    new.agrees[at] = agrees
    new.shapes[at] = shapes
    return _frozen(new)


def last(window: Window, samples: int) -> Window:
    """A window with nothing but the last ``samples`` samples."""
    window = settle(window)
    size, ramps = window.errors.shape
    kept = min(samples, window.filled)
    at = (window.cursor - kept + np.arange(kept)) % size
    new = init(size, ramps)
    errors, agrees, shapes = new.errors.copy(), new.agrees.copy(), new.shapes.copy()
    errors[:kept], agrees[:kept] = window.errors[at], window.agrees[at]
    shapes[:kept] = window.shapes[at]
    return _frozen(Window(errors, agrees, shapes, kept, kept % size))


def _frozen(window: Window) -> Window:
    for array in (window.errors, window.agrees, window.shapes):
        array.flags.writeable = False
    return window
