"""The grid against every combination in plain NumPy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.control import grid
from apparate_jax.control.thresholds import (
    budget_for,
    evaluate_thresholds,
    tune_first,
    tune_ladder,
    tune_thresholds,
)
from apparate_jax.errors import ConfigError
from tests.control.cases import Case, small_windows, typical_window

LEVELS = np.linspace(0.0, 1.0, grid.LEVELS, dtype=np.float32)


def every_combination(case: Case, limit: int) -> tuple[float, int]:
    """The largest saving of all combinations, in total, and the fewest wrong answers for it."""
    results = []
    for thresholds in itertools.product(LEVELS, repeat=case.errors.shape[1]):
        found = evaluate_thresholds(*case.valid, thresholds)
        wrong = round(found.disagreement * case.samples)
        if wrong <= limit:
            results.append((round(found.saving * case.samples, 6), -wrong))
    saving, wrong = max(results)
    return saving, -wrong


@settings(max_examples=25, deadline=None)
@given(small_windows(12).filter(lambda c: c.errors.shape[1] < 3), st.sampled_from([0.0, 0.1, 0.25]))
def test_finds_the_best_combination(case: Case, max_disagreement: float):
    found = tune_first(*case[:3], case.samples, max_disagreement, "grid")
    saving, wrong = every_combination(case, budget_for(max_disagreement, case.samples))
    assert found.saving * case.samples == pytest.approx(saving, abs=1e-5)
    assert round(found.disagreement * case.samples) == wrong
    assert set(found.thresholds.tolist()) <= set(LEVELS.tolist())


@settings(max_examples=150, deadline=None)
@given(small_windows(12), st.sampled_from([0.0, 0.1, 0.25]))
def test_keeps_the_budget_and_never_beats_exact(case: Case, max_disagreement: float):
    found = tune_first(*case[:3], case.samples, max_disagreement, "grid")
    optimum = tune_first(*case[:3], case.samples, max_disagreement, "exact")
    assert round(found.disagreement * case.samples) <= budget_for(max_disagreement, case.samples)
    assert found.saving <= optimum.saving + 1e-6


def test_takes_the_combinations_in_chunks():
    window = typical_window(512, 4, seed=0)
    assert grid.LEVELS**4 > grid._CHUNK
    found, best = (tune_thresholds(*window, 0.01, m) for m in ("grid", "exact"))
    assert 0.5 * best.saving < found.saving <= best.saving + 1e-5
    assert round(found.disagreement * 512) <= 5
    for r in range(4):  # no neighbour saves more
        for step in (-1, 1):
            other = found.thresholds.copy()
            other[r] = LEVELS[np.clip(np.abs(LEVELS - other[r]).argmin() + step, 0, 10)]
            near = evaluate_thresholds(*window, other)
            assert near.saving <= found.saving + 1e-6 or near.disagreement * 512 > 5


def test_below_zero_nobody_exits():
    found = tune_ladder(*typical_window(64, 2, seed=0), 64, [-1, 2], "grid")
    assert found[0].tolist() == [0.0, 0.0]
    assert found[1].any()


def test_too_many_combinations_are_refused():
    with pytest.raises(ConfigError, match=r"11 levels over 7 ramps has 19487171 combinations"):
        tune_thresholds(*typical_window(64, 7, seed=0), 0.1, "grid")
