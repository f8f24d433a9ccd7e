"""Windows for the benchmarks of tuning: typical ramps, and ramps of uneven quality."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.control.cases import brute_force, typical_window

Arrays = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]


def uneven_window(samples: int, ramps: int, seed: int) -> Arrays:
    """Ramps that are good or bad at random, each at inputs of its own; errors have ties."""
    rng = np.random.default_rng(seed)
    own = rng.random((samples, ramps))
    shared = rng.random((samples, 1))
    mix = rng.uniform(0.2, 0.8, ramps)
    hardness = (mix * own + (1 - mix) * shared) * rng.uniform(0.4, 1.0, ramps)
    errors = np.clip(0.5 * hardness + rng.normal(0, 0.05, (samples, ramps)), 0, 0.5)
    agrees = rng.random((samples, ramps)) > 0.6 * hardness**2
    savings = 10.0 * -np.sort(-rng.random(ramps))
    return errors.round(3).astype(np.float32), agrees, savings.astype(np.float32)


FAMILIES = {"typical": typical_window, "uneven": uneven_window}

__all__ = ["FAMILIES", "Arrays", "brute_force", "typical_window", "uneven_window"]
