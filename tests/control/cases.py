"""Windows of feedback for the tests of tuning and control, and the slow, sure way to tune them."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

LEVELS = 7


class Case(NamedTuple):
    """A small window, of which the first ``samples`` rows count."""

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    savings: NDArray[np.float32]
    samples: int

    @property
    def valid(self) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
        """The rows that count."""
        rows = slice(self.samples)
        gains = self.savings if self.savings.ndim == 1 else self.savings[rows]
        return self.errors[rows], self.agrees[rows], gains


@st.composite
def small_windows(draw: st.DrawFn, size: int) -> Case:
    """Part-filled windows of ``size`` rows and 1 to 4 ramps, with ties, NaNs and certain errors."""
    ramps = draw(st.integers(1, 4))
    samples = draw(st.integers(1, size if ramps < 4 else 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.lists(st.sampled_from(ERRORS), min_size=1, max_size=LEVELS))
    errors = rng.choice(np.asarray(levels, np.float32), (size, ramps))
    agrees = rng.random((size, ramps)) < draw(st.sampled_from([0.0, 0.3, 0.7, 0.9, 1.0]))
    low, high = draw(st.sampled_from([(0, 2), (0, 9), (1, 2), (1, 3), (1, 9)]))
    shape = (size, ramps) if draw(st.booleans()) else (ramps,)
    savings = -np.sort(-rng.integers(low, high, shape), axis=-1)
    return Case(errors, agrees, savings.astype(np.float32), samples)


ERRORS = [
    *(i / 20 for i in range(11)),
    float("nan"),
    1.0,
    -0.0,
    1e-41,  # not a normal number: XLA would take it for 0
    2e-41,
    float(np.nextafter(np.float32(0.5), np.float32(0))),
    float(np.nextafter(np.float32(1.0), np.float32(0))),
]


class Best(NamedTuple):
    """The best of all thresholds: what it saves in total, and the fewest wrong answers for it."""

    saving: float
    wrong: int


def brute_force(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    limit: int,
) -> Best:
    """Try every combination of thresholds: 0, 1 and each error that occurs."""
    samples, ramps = errors.shape
    choices = [np.unique([0.0, 1.0, *column[~np.isnan(column)]]) for column in errors.T]
    grid = np.meshgrid(*(c.astype(np.float32) for c in choices), indexing="ij")
    thresholds = np.stack([g.ravel() for g in grid], axis=-1)
    below = errors[None] < thresholds[:, None]
    saving = np.zeros(len(thresholds))
    wrong = np.zeros(len(thresholds), int)
    inside = np.ones((len(thresholds), samples), bool)
    for r in range(ramps):
        leaves = inside & below[:, :, r]
        inside &= ~leaves
        saving += (leaves * savings[..., r]).sum(axis=1)
        wrong += (leaves & ~agrees[:, r]).sum(axis=1)
    saving[wrong > limit] = -1.0
    best = saving.max()
    return Best(float(best), int(wrong[saving == best].min()))


def typical_window(
    samples: int, ramps: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """A window as ramps give it: later ramps are surer and more often right."""
    rng = np.random.default_rng(seed)
    hardness = rng.random((samples, 1)) * np.linspace(1.0, 0.3, ramps)
    errors = np.clip(0.5 * hardness + rng.normal(0, 0.08, (samples, ramps)), 0, 0.5)
    agrees = rng.random((samples, ramps)) > 0.5 * hardness**2
    savings = np.linspace(10.0, 1.0, ramps)
    return errors.astype(np.float32), agrees, savings.astype(np.float32)
