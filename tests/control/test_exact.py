"""The exact search against brute force over all thresholds."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.control import exact
from apparate_jax.control.thresholds import (
    budget_for,
    evaluate_thresholds,
    tune_first,
    tune_ladder,
    tune_thresholds,
)
from apparate_jax.errors import ConfigError
from tests.control.cases import Case, brute_force, small_windows, typical_window

SIZE = 12


@settings(max_examples=1200, deadline=None)
@given(small_windows(SIZE), st.sampled_from([0.0, 0.1, 0.25]))
def test_equals_brute_force(case: Case, max_disagreement: float):
    limit = budget_for(max_disagreement, case.samples)
    tuning = tune_first(*case[:3], case.samples, max_disagreement)
    best = brute_force(*case.valid, limit)
    assert tuning.saving * case.samples == pytest.approx(best.saving, abs=1e-6)
    wrong = round(tuning.disagreement * case.samples)
    assert wrong <= limit
    if case.savings.ndim == 1 or (case.savings > 0).all():
        assert wrong == best.wrong

    # the live rule, on the very same values, lets out exactly those that were counted
    live = evaluate_thresholds(*case.valid, tuning.thresholds)
    assert live.saving == tuning.saving
    assert live.disagreement == tuning.disagreement
    assert ((tuning.thresholds >= 0) & (tuning.thresholds <= 1)).all()


@pytest.mark.parametrize("samples", [31, 32, 33, 64])
def test_windows_around_whole_words(samples: int):
    rng = np.random.default_rng(samples)
    errors = rng.integers(0, 6, (samples, 2)).astype(np.float32) / 10
    agrees = rng.random((samples, 2)) < 0.8
    savings = np.array([3, 2], np.float32)
    for limit in (0, 1, 4):
        found = exact.search(errors, agrees, savings, np.int32(samples), np.int32(limit), budget=4)
        live = evaluate_thresholds(errors, agrees, savings, np.asarray(found))
        best = brute_force(errors, agrees, savings, limit)
        assert live.saving * samples == pytest.approx(best.saving)
        assert round(live.disagreement * samples) == best.wrong


def test_rows_that_do_not_count_change_nothing():
    rng = np.random.default_rng(0)
    errors = rng.random((SIZE, 3)).astype(np.float32)
    agrees = rng.random((SIZE, 3)) < 0.7
    savings = np.array([5, 3, 1], np.float32)
    first = tune_first(errors, agrees, savings, 7, 0.25)
    errors[7:], agrees[7:] = 0.0, False
    again = tune_first(errors, agrees, savings, 7, 0.25)
    np.testing.assert_array_equal(first.thresholds, again.thresholds)
    assert first[1:] == again[1:]


def test_of_equal_savings_the_fewest_wrong_answers_win():
    # all leave at the first ramp with one wrong, or at the second one with two
    errors = np.float32([[0.0, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1]])
    agrees = np.array([[False, True], [True, True], [True, False], [True, False]])
    tuning = tune_first(errors, agrees, np.ones(2, np.float32), 4, 0.5)
    assert (tuning.saving, tuning.disagreement) == (1.0, 0.25)


def test_no_samples_open_every_ramp():
    found = exact.search(
        np.zeros((4, 2), np.float32),
        np.zeros((4, 2), bool),
        np.array([2, 1], np.float32),
        np.int32(0),
        np.int32(0),
        budget=0,
    )
    assert found.tolist() == [exact.OPEN, exact.OPEN]


def test_one_program_serves_a_window_as_it_fills(caplog: pytest.LogCaptureFixture):
    def search(size: int, samples: int, limit: int) -> None:
        errors = np.full((size, 2), 0.1, np.float32)
        agrees = np.ones((size, 2), bool)
        savings = np.array([2, 1], np.float32)
        exact.search(errors, agrees, savings, np.int32(samples), np.int32(limit), budget=1)

    search(17, 1, 0)
    with jax.log_compiles():
        for samples in range(2, 18):
            search(17, samples, samples % 2)
        assert not [r for r in caplog.records if "search" in r.getMessage()]
        search(18, 1, 0)
        assert [r for r in caplog.records if "search" in r.getMessage()]


def test_counts_candidates():
    assert exact.num_candidates(0, 4) == 1
    assert exact.num_candidates(7, 1) == 1
    assert exact.num_candidates(5, 3) == 21
    levels, used = exact.plan(5, 3)
    shared = {(a, b) for a, b in zip(levels[1].parent, levels[1].wrong, strict=True)}
    assert len(shared) == len(used) == 21
    assert used.min() == 0
    assert used.max() == 5


def test_too_many_candidates_are_refused():
    table = np.zeros((512, 12), np.float32)
    right = np.ones((512, 12), bool)
    with pytest.raises(ConfigError, match=r"51 wrong answers.*auto.*beam.*greedy.*fewer"):
        tune_first(table, right, np.ones(12, np.float32), 512, 0.1)


@settings(max_examples=200, deadline=None)
@given(small_windows(SIZE), st.lists(st.integers(-2, 4), min_size=3, max_size=3))
def test_a_ladder_is_each_limit_on_its_own(case: Case, limits: list[int]):
    found = tune_ladder(*case[:3], case.samples, limits, budget=4)
    assert found.shape == (3, case.errors.shape[1])
    for limit, thresholds in zip(limits, found, strict=True):
        if limit < 0:
            assert not thresholds.any()
            continue
        live = evaluate_thresholds(*case.valid, thresholds)
        best = brute_force(*case.valid, limit)
        assert live.saving * case.samples == pytest.approx(best.saving, abs=1e-5)
        assert round(live.disagreement * case.samples) <= limit


@pytest.mark.parametrize("method", ["exact", "beam", "greedy", "greedy-artifact", "grid", "auto"])
def test_a_ladder_of_any_method_is_its_tuning_at_each_limit(method):
    window = typical_window(200, 3, seed=5)
    found = tune_ladder(*window, 200, [0, 4, 2], method)
    for limit, thresholds in zip((0, 4, 2), found, strict=True):
        alone = tune_thresholds(*window, limit / 200, method)
        both = [evaluate_thresholds(*window, t) for t in (thresholds, alone.thresholds)]
        assert both[0].saving == pytest.approx(both[1].saving)
        assert both[0].disagreement == both[1].disagreement <= limit / 200
    assert tune_ladder(*window, 200, [], method).shape == (0, 3)


def test_a_limit_above_the_budget_is_refused():
    with pytest.raises(ConfigError, match="largest limit is 5, expected at most the budget, 4"):
        tune_ladder(*typical_window(40, 2, seed=0), 40, [1, 5], budget=4)


def test_one_program_serves_ladders_of_all_values(caplog: pytest.LogCaptureFixture):
    window = typical_window(43, 2, seed=0)
    tune_ladder(*window, 43, [0, 1, 2], budget=6)
    with jax.log_compiles():
        for limits in ([4, 5, 6], [-1, 6, 3], [0, 0, 0]):
            tune_ladder(*window, 20, limits, budget=6)
    assert not [r for r in caplog.records if "ladder" in r.getMessage()]
