import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.control import evaluate_thresholds, tune_thresholds
from apparate_jax.core import Site
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig, evenly, place, place_by_validation


def sites(*depths):
    return [Site(i, f"s{i}", d, (1, 4), "float32", "") for i, d in enumerate(depths)]


TENTHS = sites(*(i / 10 for i in range(1, 11)))
SMALL = [100] * 10


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=12, unique=True), st.integers(1, 12))
def test_evenly_chooses_as_many_as_asked(depths, count):
    count = min(count, len(depths))
    chosen = evenly(sorted(depths), count)
    assert len(chosen) == count and list(chosen) == sorted(set(chosen))


def test_ramps_are_evenly_spaced():
    twentieths = sites(*(i / 20 for i in range(20)))
    for count, expected in ((1, (10,)), (3, (5, 10, 15)), (4, (4, 8, 12, 16))):
        config = PlacementConfig(max_ramps=count)
        assert place(twentieths, [100] * 20, config) == expected


def test_the_end_of_the_model_is_left_out():
    assert place(TENTHS, SMALL, PlacementConfig(max_ramps=99)) == tuple(range(9))
    assert place(sites(0.99), [1]) == ()


def test_the_ramp_budget_bounds_the_sum_of_costs():
    config = PlacementConfig(max_ramps=9, ramp_budget=0.02)
    for cost, count in ((0.0, 9), (0.004, 5), (0.0101, 1), (0.03, 0)):
        assert len(place(TENTHS, SMALL, config, [cost] * 10)) == count


def test_the_memory_budget_bounds_the_sum_of_sizes():
    config = PlacementConfig(max_ramps=9, memory_budget_mb=1.0)
    assert len(place(TENTHS, [300_000] * 10, config)) == 3
    huge_first = [2**30, *[10] * 9]
    assert 0 not in place(TENTHS, huge_first, config)
    assert len(place(TENTHS, huge_first, config)) == 8


def test_indices_are_those_of_the_sites():
    assert place(TENTHS[3:6], [1] * 3, PlacementConfig(max_ramps=3)) == (3, 4, 5)


@pytest.mark.parametrize(
    "wrong",
    [{"ramp_budget": -0.1}, {"deepest": 0.0}, {"max_ramps": -1}, {"memory_budget_mb": 0.0}],
)
def test_budgets_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PlacementConfig(**wrong)


def test_one_size_and_cost_per_site():
    with pytest.raises(ConfigError, match="one per site"):
        place(TENTHS, [1, 2])
    with pytest.raises(ConfigError, match="one per site"):
        place(TENTHS, SMALL, None, [0.1])


def recorded(seed, samples=60, ramps=5):
    rng = np.random.default_rng(seed)
    hard = rng.uniform(0, 1, samples)
    depth = np.linspace(0.2, 0.8, ramps)
    agrees = hard[:, None] < depth + rng.uniform(0, 0.5, (samples, ramps))
    errors = np.clip(hard[:, None] * (1.2 - depth) + rng.normal(0, 0.1, agrees.shape), 0, 1)
    return errors.astype(np.float32), agrees, 1.0 - depth


def brute_force(errors, agrees, savings, max_ramps, max_disagreement, costs):
    best = 0.0
    for size in range(1, max_ramps + 1):
        for subset in itertools.combinations(range(errors.shape[1]), size):
            columns = list(subset)
            tuned = tune_thresholds(
                errors[:, columns], agrees[:, columns], savings[columns], max_disagreement
            )
            best = max(best, tuned.saving - costs[columns].sum())
    return best


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([0.0, 0.02]))
def test_placement_by_validation_equals_brute_force(seed, max_ramps, price):
    errors, agrees, savings = recorded(seed)
    costs = np.full(5, price)
    found = place_by_validation(
        errors,
        agrees,
        savings,
        tune_thresholds,
        max_ramps=max_ramps,
        max_disagreement=0.05,
        costs=costs,
    )
    best = brute_force(errors, agrees, savings, max_ramps, 0.05, costs)
    np.testing.assert_allclose(found.saving, best, rtol=1e-5)
    assert len(found.ramps) <= max_ramps and list(found.ramps) == sorted(set(found.ramps))
    if found.ramps:
        columns = list(found.ramps)
        check = evaluate_thresholds(
            errors[:, columns], agrees[:, columns], savings[columns], found.thresholds
        )
        np.testing.assert_allclose(check.saving - costs[columns].sum(), found.saving, rtol=1e-5)
        assert check.disagreement <= 0.05


def test_ramps_that_cost_more_than_they_save_are_left_out():
    errors, agrees, savings = recorded(1)
    found = place_by_validation(errors, agrees, savings, tune_thresholds, costs=np.full(5, 0.9))
    assert found.ramps == () and found.saving == 0.0


def test_a_narrow_beam_tries_fewer_subsets_and_is_no_better():
    errors, agrees, savings = recorded(2)
    calls = []

    def counted(*window):
        calls.append(window[0].shape[1])
        return tune_thresholds(*window)

    options = {"max_ramps": 3, "max_disagreement": 0.05}
    full = place_by_validation(errors, agrees, savings, counted, **options)
    assert sorted(calls) == [1] * 5 + [2] * 10 + [3] * 10
    calls.clear()
    beam = place_by_validation(errors, agrees, savings, counted, **options, max_trials=5)
    assert sorted(calls) == [1] * 5 + [2] * 4 + [3] * 3
    assert beam.saving <= full.saving


def test_shapes_and_limits_are_checked():
    errors, agrees, savings = recorded(3)
    with pytest.raises(ConfigError, match="savings"):
        place_by_validation(errors, agrees, savings[:2], tune_thresholds)
    with pytest.raises(ConfigError, match="max_ramps"):
        place_by_validation(errors, agrees, savings, tune_thresholds, max_ramps=0)
