"""The joint choice of ramps and thresholds against tuning each set on its own."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.control import set_search
from apparate_jax.control.subsets import Budget, choose_ramps, net_of, warm
from apparate_jax.errors import ConfigError
from tests.control.cases import Case, brute_force, small_windows, typical_window

GOOD = {
    "errors": np.full((4, 2), 0.2, np.float32),
    "agrees": np.ones((4, 2), bool),
    "savings": np.array([2.0, 1.0]),
    "costs": np.array([0.1, 0.1]),
    "samples": 4,
    "limit": 1,
}


def one_by_one(case: Case, costs, limit: int, max_ramps: int) -> dict[tuple[int, ...], float]:
    """The net of every set, each tuned by brute force."""
    errors, agrees, savings = case.valid
    nets = {(): 0.0}
    for size in range(1, max_ramps + 1):
        for columns in itertools.combinations(range(len(savings)), size):
            of = list(columns)
            best = brute_force(errors[:, of], agrees[:, of], savings[of], limit)
            nets[columns] = best.saving / case.samples - costs[of].sum()
    return nets


@settings(max_examples=300, deadline=None)
@given(
    small_windows(12).filter(lambda c: c.savings.ndim == 1),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.3, 2.0]),
)
def test_is_the_best_of_all_sets(case: Case, limit: int, max_ramps: int, price: float):
    costs = np.random.default_rng(case.samples).random(len(case.savings)) * price
    found = choose_ramps(*case[:3], costs, case.samples, limit, max_ramps=max_ramps, budget=3)
    nets = one_by_one(case, costs, limit, min(max_ramps, len(costs)))
    assert found.net == pytest.approx(max(nets.values()), abs=1e-5)
    assert found.net == pytest.approx(nets[found.columns], abs=1e-5)
    fewest = min(len(c) for c, net in nets.items() if net > max(nets.values()) - 1e-7)
    assert len(found.columns) <= fewest

    assert found.saving - found.cost == pytest.approx(found.net)
    assert round(found.disagreement * case.samples) <= limit
    live = net_of(*case.valid, costs, found.columns, found.thresholds)
    assert live.gains.mean() == pytest.approx(found.net)
    assert live.wrong.mean() == found.disagreement


def test_allowed_sets_and_budgets_are_respected():
    window = typical_window(256, 5, seed=0)
    costs = np.full(5, 0.1)
    free = choose_ramps(*window, costs, 256, 3)
    assert len(free.columns) == 3
    given = [(4, 1), (2,), free.columns[:1]]
    found = choose_ramps(*window, costs, 256, 3, allowed=given)
    each = [choose_ramps(*window, costs, 256, 3, allowed=[one]) for one in given]
    assert found.net == max(one.net for one in each)
    assert each[0].columns == (1, 4)
    assert choose_ramps(*window, costs, 256, 3, allowed=[]).columns == ()

    use = np.arange(1.0, 6.0)
    within = choose_ramps(*window, costs, 256, 3, budgets=[Budget(use, 4.0)])
    fitting = [
        c for r in (1, 2, 3) for c in itertools.combinations(range(5), r) if use[list(c)].sum() <= 4
    ]
    best = choose_ramps(*window, costs, 256, 3, allowed=fitting)
    assert within.columns == best.columns in fitting
    assert choose_ramps(*window, costs, 256, 3, budgets=[Budget(use, 0.5)]).columns == ()


def test_rows_that_do_not_count_and_ramps_without_errors_change_nothing():
    errors, agrees, savings = typical_window(64, 4, seed=1)
    errors[:, 0] = np.nan
    data = (savings, np.full(4, 0.01), 40, 2)
    found = choose_ramps(errors, agrees, *data)
    assert 0 not in found.columns
    errors[40:], agrees[40:] = 0.0, False
    again = choose_ramps(errors, agrees, *data)
    assert again.columns == found.columns
    np.testing.assert_array_equal(again.thresholds, found.thresholds)
    assert again.net == found.net


def test_nothing_is_active_where_nothing_is_gained():
    window = typical_window(64, 3, seed=0)
    for change in ({"limit": -1}, {"costs": np.full(3, 99.0)}, {"max_ramps": 0}, {"samples": 0}):
        settings = {"costs": np.zeros(3), "samples": 64, "limit": 1, "max_ramps": 2, **change}
        found = choose_ramps(*window, **settings)
        assert found.columns == ()
        assert (found.net, found.cost, found.disagreement, len(found.thresholds)) == (0, 0, 0, 0)


def test_a_cost_is_paid_by_every_sample():
    errors = np.array([[0.1, 0.1], [0.4, 0.1], [np.nan, 0.4]], np.float32)
    agrees = np.array([[True, True], [True, False], [True, True]])
    net = net_of(errors, agrees, [5.0, 3.0], [0.5, 0.25], (0, 1), [0.2, 0.3])
    assert net.gains.tolist() == [4.25, 2.25, -0.75]
    assert net.wrong.tolist() == [False, True, False]
    net = net_of(errors, agrees, [5.0, 3.0], [0.5, 0.25], (), [])
    assert net.gains.tolist() == [0.0, 0.0, 0.0]


def test_growth_is_near_the_best_of_all(monkeypatch: pytest.MonkeyPatch):
    windows = [typical_window(256, 10, seed) for seed in range(6)]
    costs = np.random.default_rng(0).random(10) * 0.4
    every = [choose_ramps(*w, costs, 256, 3, budgets=[Budget([1] * 10, 3)]) for w in windows]
    monkeypatch.setattr(set_search, "MAX_WORK", 0)
    for window, best in zip(windows, every, strict=True):
        found = choose_ramps(*window, costs, 256, 3, budgets=[Budget([1] * 10, 3)])
        assert found.net >= 0.98 * best.net
        assert found.net <= best.net + 1e-5
        pairs = list(itertools.combinations(range(4), 2))
        allowed = [*pairs, (0,), (1,), (2,), (3,)]
        found = choose_ramps(*window, costs, 256, 3, allowed=allowed)
        assert found.columns in allowed


def test_warm_compiles_all_that_a_choice_runs(caplog: pytest.LogCaptureFixture):
    window = typical_window(45, 6, seed=0)
    warm(45, 6, 2)
    with jax.log_compiles():
        for limit, samples in ((2, 45), (1, 30), (0, 1)):
            choose_ramps(*window, np.full(6, 0.1), samples, limit, budget=2)
        choose_ramps(*window, np.full(6, 0.1), 45, 2, allowed=[(1, 2), (3,)], budget=2)
    assert not [r for r in caplog.records if "_tune" in r.getMessage()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": [0.1]}, "expected one of each per site"),
        ({"costs": [0.1, -0.1]}, "not negative"),
        ({"costs": [0.1, np.nan]}, "finite"),
        ({"savings": [1.0, 2.0]}, "not increase"),
        ({"savings": np.ones((4, 2))}, "expected one of each per site"),
        ({"limit": 3, "budget": 2}, "limit is 3, expected at most the budget, 2"),
        ({"allowed": [(0, 2)]}, "not within 0..1"),
        ({"allowed": [(-1,)]}, "not within 0..1"),
        ({"budgets": [Budget([1.0], 1.0)]}, "expected 2, none negative"),
        ({"budgets": [Budget([1.0, -1.0], 1.0)]}, "expected 2, none negative"),
        ({"limit": 300_000}, "fewer ramps or a smaller window"),
    ],
)
def test_bad_input_says_what_was_expected(change: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        choose_ramps(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("columns", "thresholds"), [((1, 0), [0.1, 0.1]), ((0, 2), [0.1, 0.1]), ((0,), [0.1, 0.1])]
)
def test_bad_sets_are_refused(columns, thresholds):
    data = [GOOD[name] for name in ("errors", "agrees", "savings", "costs")]
    with pytest.raises(ConfigError, match="expected ascending columns below 2"):
        net_of(*data, columns, thresholds)
