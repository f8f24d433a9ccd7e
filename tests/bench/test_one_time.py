"""Thresholds tuned once: against brute force, and against one another."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.bench.one_time import (
    data_of,
    past,
    plan_best,
    plan_each,
    plan_shared,
    shared_threshold,
)
from apparate_jax.control.interface import Observation
from apparate_jax.control.thresholds import budget_for, evaluate_thresholds
from tests.bench import tiny


def best_by_trying(errors, agrees, savings, eps):
    """Every threshold that makes a difference."""
    most = 0.0
    for value in [*np.unique(errors[~np.isnan(errors)]), np.float32(1.0)]:
        seen = evaluate_thresholds(errors, agrees, savings, [value] * errors.shape[1])
        if round(seen.disagreement * len(errors)) <= budget_for(eps, len(errors)):
            most = max(most, seen.saving)
    return most


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.2, 1.0]))
def test_one_threshold_for_all_is_the_best_there_is(seed, eps):
    rng = np.random.default_rng(seed)
    errors = (rng.integers(0, 12, (25, 3)) / 13).astype(np.float32)
    errors[rng.random((25, 3)) < 0.05] = np.nan
    agrees = rng.random((25, 3)) < 0.8
    savings = np.float32([5.0, 3.0, 1.0])
    found = shared_threshold(errors, agrees, savings, eps)
    seen = evaluate_thresholds(errors, agrees, savings, [found] * 3)
    assert seen.disagreement <= eps + 1e-9
    assert seen.saving == pytest.approx(best_by_trying(errors, agrees, savings, eps))


def test_the_best_plan_is_never_below_either():
    for seed in range(5):
        made = tiny.recording(200, seed)
        data = data_of(made, made.ramps)
        for eps in (0.01, 0.05):
            best = evaluate_thresholds(*data, plan_best(made, made.ramps, eps).thresholds)
            assert best.disagreement <= eps
            for plan in (plan_shared(made, (0, 1, 2), eps), plan_each(made, (0, 1, 2), eps)):
                other = evaluate_thresholds(*data, plan.thresholds)
                assert other.disagreement > eps or best.saving >= other.saving


def test_large_samples_are_thinned_out():
    made = tiny.recording(3000)
    plan = plan_each(made, (0, 1, 2), 0.3)
    assert len(plan.thresholds) == 3 and max(plan.thresholds) > 0


def test_the_past_batches_by_hand():
    """Nothing leaves before enough was seen; then the batches' own optimum is in force."""
    made = tiny.recording()
    policy = past(made, (0, 2), 0.0, batches=5)
    state = policy.init()
    assert policy.plan(state).thresholds == (0.0, 0.0)
    errors = np.float32([[0.1, 0.05], [0.4, 0.2]])
    agrees = np.array([[True, True], [False, True]])
    for batch in range(5):
        seen = Observation((0, 2), errors, agrees, np.full(2, 2, np.int32), 2)
        plan, state, info = policy.update(state, seen)
        assert (info.tuning is not None) == (batch == 4)
    assert plan.thresholds == pytest.approx((0.4, 1.0))
    other = seen._replace(sites=(1,))
    assert policy.update(state, other)[1] is state


def test_no_wrong_answers_at_all():
    made = tiny.recording(50)
    right = replace(made, predictions=np.repeat(made.final_predictions[:, None], 3, axis=1))
    assert plan_shared(right, (0, 1, 2), 0.0).thresholds == (1.0, 1.0, 1.0)
