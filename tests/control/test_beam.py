"""The beam search: within the budget, near exact, and one program for all limits."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.control import beam, exact
from apparate_jax.control.thresholds import (
    budget_for,
    evaluate_thresholds,
    tune_ladder,
    tune_thresholds,
)
from apparate_jax.errors import ConfigError
from tests.control.cases import Case, small_windows, typical_window


@settings(max_examples=120, deadline=None)
@given(small_windows(12), st.sampled_from([0.0, 0.1, 0.25]))
def test_keeps_the_budget_and_never_beats_exact(case: Case, max_disagreement: float):
    limit = budget_for(max_disagreement, case.samples)
    # One budget: a program for each takes longer to compile than all of the searches together.
    thresholds = [
        tune_ladder(*case[:3], case.samples, [limit], method, budget=3)[0]
        for method in ("beam", "exact")
    ]
    found, optimum = (evaluate_thresholds(*case.valid, each) for each in thresholds)
    assert round(found.disagreement * case.samples) <= limit
    assert found.saving <= optimum.saving + 1e-6
    assert found.saving >= 0.9 * optimum.saving
    assert ((thresholds[0] >= 0) & (thresholds[0] <= 1)).all()


@pytest.mark.parametrize(("samples", "ramps", "limit"), [(512, 6, 10), (512, 12, 5), (300, 3, 20)])
def test_is_near_exact_on_whole_windows(samples: int, ramps: int, limit: int):
    for seed in range(6):
        window = typical_window(samples, ramps, seed)
        found, best = (tune_thresholds(*window, limit / samples, m) for m in ("beam", "exact"))
        assert found.saving == pytest.approx(best.saving, rel=0.005)
        assert found.saving <= best.saving + 1e-5


def test_one_sample_and_one_ramp_are_exact():
    window = typical_window(200, 1, seed=3)
    for limit in (0, 3, 9):
        found, best = (tune_thresholds(*window, limit / 200, m) for m in ("beam", "exact"))
        np.testing.assert_array_equal(found.thresholds, best.thresholds)


def test_savings_of_each_sample_count():
    errors, agrees, savings = typical_window(100, 3, seed=4)
    each = np.random.default_rng(0).uniform(0.5, 2, (100, 1)).astype(np.float32) * savings
    found, best = (tune_thresholds(errors, agrees, each, 0.04, m) for m in ("beam", "exact"))
    assert found.saving == pytest.approx(best.saving, rel=0.005)


def test_auto_is_exact_where_that_fits_and_else_beam():
    window = typical_window(512, 8, seed=0)
    auto, best = (tune_thresholds(*window, 4 / 512, m) for m in ("auto", "exact"))
    np.testing.assert_array_equal(auto.thresholds, best.thresholds)

    assert exact.num_candidates(25, 8) > exact.MAX_CANDIDATES
    auto, near = (tune_thresholds(*window, 25 / 512, m) for m in ("auto", "beam"))
    np.testing.assert_array_equal(auto.thresholds, near.thresholds)
    greedy = tune_thresholds(*window, 25 / 512, "greedy")
    assert auto.saving > greedy.saving
    assert round(auto.disagreement * 512) <= 25


def test_its_tree_has_every_way_to_go_on_once():
    tree = beam._tree(6)
    ways = {*zip(tree.parent.tolist(), tree.allowed.tolist(), strict=True)}
    width = beam.WIDTH
    assert ways == {
        (used * width + kept, more)
        for used, more, kept in itertools.product(range(7), range(7), range(width))
        if used + more <= 6
    }
    assert len(ways) == len(tree.parent)
    listed = tree.rows[tree.rows < len(tree.parent)]
    assert sorted(listed) == list(range(len(tree.parent)))
    for total, row in enumerate(tree.rows):
        assert (tree.wrong[row[row < len(tree.parent)]] == total).all()
    np.testing.assert_array_equal(tree.wrong, tree.parent // width + tree.allowed)


def test_large_budgets_have_narrow_beams_and_larger_ones_are_refused():
    assert beam._tree(20).width == beam.WIDTH
    assert 1 <= beam._tree(100).width < beam.WIDTH
    assert beam._tree(beam.MAX_BUDGET).width == 1
    with pytest.raises(ConfigError, match=r"256 wrong answers.*greedy"):
        beam._tree(beam.MAX_BUDGET + 1)


def test_one_program_serves_all_limits_and_below_zero_nobody_exits(
    caplog: pytest.LogCaptureFixture,
):
    window = typical_window(77, 2, seed=0)
    tune_ladder(*window, 77, [3], "beam", budget=3)
    with jax.log_compiles():
        found = tune_ladder(*window, 70, [-1, 0, 1, 2], "beam", budget=3)
    assert not [r for r in caplog.records if "search" in r.getMessage()]
    assert found[0].tolist() == [0.0, 0.0]
    rows = [a[:70] for a in window[:2]]
    wrong = [evaluate_thresholds(*rows, window[2], row).disagreement * 70 for row in found[1:]]
    assert all(round(w) <= limit for limit, w in enumerate(wrong))
