"""Ramps at the start: the set that saves most under the constraint, by brute force."""

from dataclasses import replace
from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.control.adjust import BUDGET_FRAC
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.initial import ASSUMED_COST, initial_sites
from apparate_jax.control.thresholds import tune_thresholds
from apparate_jax.core import Site
from apparate_jax.ramps.heads import Ramp
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.ramps.train import Validation

DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
SITES = tuple(Site(i, f"s{i}", d, (1, 8), "float32", "") for i, d in enumerate(DEPTHS))
CONTROL = ControlConfig(accuracy=0.95)
STRICT = ControlConfig(accuracy=1.0)
PLACEMENT = PlacementConfig(max_ramps=2, deepest=0.95)


def ramp(site, width=8):
    params = {"kernel": jnp.zeros((width, 2)), "bias": jnp.zeros(2)}
    return Ramp(site, f"s{site}", "identity", params, 0.5, 1.0)


RAMPS = tuple(map(ramp, range(5)))


def validation(rights, seed=0, samples=200):
    """Held-out samples: per ramp, the share that it is right on; wrong answers look unsure."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, samples).astype(np.int32)
    right = rng.uniform(size=(samples, len(rights))) < np.asarray(rights)
    errors = np.where(
        right,
        rng.uniform(0, 0.3, right.shape),
        rng.uniform(0.2, 0.5, right.shape),
    ).astype(np.float32)
    predictions = np.where(right, labels[:, None], 1 - labels[:, None]).astype(np.int32)
    sites = tuple(range(len(rights)))
    return Validation(sites, np.arange(samples), errors, predictions, labels)


def saving(held_out, columns, control=CONTROL):
    columns = list(columns)
    gains = [1 - DEPTHS[c] for c in columns]
    tuned = tune_thresholds(
        held_out.errors[:, columns],
        held_out.agrees[:, columns],
        gains,
        BUDGET_FRAC * control.max_disagreement,
        control.method,
    )
    return float(tuned.saving) - ASSUMED_COST * len(columns)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", ["exact", "greedy"])
def test_the_best_set_against_brute_force(seed, method):
    held_out = validation((0.6, 0.75, 0.85, 0.95, 0.99), seed)
    control = replace(CONTROL, method=method)
    found = initial_sites(SITES, RAMPS, held_out, PLACEMENT, control)
    sets = [s for size in (1, 2) for s in combinations(range(5), size)]
    best = max(saving(held_out, s, control) for s in sets)
    assert saving(held_out, found, control) == pytest.approx(best, abs=1e-6)
    assert list(found) == sorted(found) and 1 <= len(found) <= 2


def test_a_ramp_that_is_always_wrong_is_not_active():
    held_out = validation((0.0, 0.0, 1.0, 1.0, 1.0))
    assert initial_sites(SITES, RAMPS, held_out, PLACEMENT, STRICT) == (2,)


def test_nothing_saves_more_than_it_costs():
    assert initial_sites(SITES, RAMPS, validation((0.0,) * 5), PLACEMENT, STRICT) == ()


def test_sites_without_a_ramp_are_no_candidates():
    """Columns of the validation stand for ramps, not for sites."""
    ramps = (ramp(1), ramp(3))
    held_out = replace(validation((0.0, 1.0)), sites=(1, 3))
    assert initial_sites(SITES, ramps, held_out, PLACEMENT, STRICT) == (3,)


def test_too_deep_or_too_large_ramps_are_no_candidates():
    held_out = validation((0.0, 0.0, 1.0, 1.0, 1.0))
    shallow = replace(PLACEMENT, deepest=0.45)
    assert initial_sites(SITES, RAMPS, held_out, shallow, STRICT) == ()
    wide = (*RAMPS[:2], ramp(2, width=10**6), *RAMPS[3:])
    small = replace(PLACEMENT, memory_budget_mb=1.0)
    assert initial_sites(SITES, wide, held_out, small, STRICT) == (3,)
    assert initial_sites(SITES, wide, held_out, replace(PLACEMENT, deepest=0.05), CONTROL) == ()


def test_evenly_spaced_where_asked_or_without_validation():
    even = replace(PLACEMENT, policy="even")
    held_out = validation((0.0, 0.0, 1.0, 1.0, 1.0))
    spaced = initial_sites(SITES, RAMPS, held_out, even, CONTROL)
    assert len(spaced) == 2 and spaced == initial_sites(SITES, RAMPS, None, PLACEMENT, CONTROL)
    assert initial_sites(SITES, RAMPS, held_out, replace(PLACEMENT, max_ramps=0), CONTROL) == ()
    assert initial_sites(SITES, (), None, PLACEMENT, CONTROL) == ()
