"""The one interface: budgets, evaluation, oracle, bad input."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.control.thresholds import (
    budget_for,
    evaluate_first,
    evaluate_thresholds,
    first_exits,
    oracle_saving,
    tune_thresholds,
)
from apparate_jax.errors import ConfigError
from tests.control.cases import typical_window

GOOD = (np.full((4, 2), 0.2, np.float32), np.ones((4, 2), bool), np.array([2.0, 1.0]))


@given(st.integers(0, 1000), st.integers(1, 10_000))
def test_budget_is_the_floor_of_the_share(permille: int, samples: int):
    assert budget_for(permille / 1000, samples) == permille * samples // 1000
    assert budget_for(1.0 - (1000 - permille) / 1000, samples) == permille * samples // 1000


def test_exits_are_strictly_below_and_zero_never_exits():
    errors = np.array([[0.0], [0.1], [0.2], [np.nan]], np.float32)
    assert first_exits(errors, (0.0,)).tolist() == [1, 1, 1, 1]
    assert first_exits(errors, np.array([0.1], np.float32)).tolist() == [0, 1, 1, 1]
    assert first_exits(errors, (1.0,)).tolist() == [0, 0, 0, 1]


def test_a_threshold_is_the_error_of_the_first_wrong_sample_that_stays():
    errors = np.array([[0.1], [0.2], [0.2], [0.3], [0.4]], np.float32)
    agrees = np.array([[True], [True], [False], [True], [False]])
    none = tune_thresholds(errors, agrees, [1.0], 0.0)
    assert none.thresholds.tolist() == [np.float32(0.2)]
    assert (none.saving, none.disagreement) == (0.2, 0.0)
    one = tune_thresholds(errors, agrees, [1.0], 0.2)
    assert one.thresholds.tolist() == [np.float32(0.4)]
    assert (one.saving, one.disagreement) == (0.8, 0.2)
    both = tune_thresholds(errors, agrees, [1.0], 0.4)
    assert both.thresholds.tolist() == [1.0]


def test_equal_errors_cannot_be_separated():
    errors = np.full((6, 1), 0.25, np.float32)
    agrees = np.array([[True], [True], [True], [True], [False], [False]])
    assert tune_thresholds(errors, agrees, [1.0], 1 / 6).saving == 0.0
    assert tune_thresholds(errors, agrees, [1.0], 2 / 6).saving == 1.0


def test_a_ramp_that_saves_nothing_stays_closed():
    errors, agrees, _ = typical_window(64, 3, seed=1)
    tuning = tune_thresholds(errors, agrees, [4.0, 0.0, 0.0], 0.05)
    assert tuning.thresholds[0] > 0
    assert tuning.thresholds[1:].tolist() == [0.0, 0.0]


def test_savings_of_each_sample_decide():
    # the same errors, but only the second sample is worth a wrong answer
    errors = np.array([[0.1, 0.1], [0.2, 0.2]], np.float32)
    agrees = np.array([[True, True], [False, True]])
    cheap = tune_thresholds(errors, agrees, [[9.0, 9.0], [1.0, 1.0]], 0.0)
    assert cheap.saving == pytest.approx(5.0)
    dear = tune_thresholds(errors, agrees, [[1.0, 0.0], [9.0, 9.0]], 0.0)
    assert dear.saving == pytest.approx(5.0)
    assert evaluate_thresholds(errors, agrees, [1.0, 1.0], dear.thresholds).exit_counts[1] == 1


def test_evaluation_counts_every_sample_once():
    errors, agrees, savings = typical_window(300, 3, seed=2)
    found = evaluate_thresholds(errors, agrees, savings, [0.1, 0.2, 0.3])
    exits = first_exits(errors, (0.1, 0.2, 0.3))
    assert found.exit_counts.tolist() == [(exits == r).sum() for r in range(4)]
    gains = np.append(savings, 0.0)[exits]
    assert found.saving == pytest.approx(gains.mean())
    right = np.append(agrees, np.ones((300, 1), bool), axis=1)[np.arange(300), exits]
    assert found.disagreement == pytest.approx((~right).mean())
    shares = [(~right[exits == r]).mean() for r in range(3)]
    np.testing.assert_allclose(found.wrong_shares, shares)

    part = evaluate_first(errors, agrees, savings, 100, np.float32([0.1, 0.2, 0.0]))
    same = evaluate_thresholds(errors[:100], agrees[:100], savings, [0.1, 0.2, 0.0])
    assert part[:2] == same[:2]
    np.testing.assert_array_equal(part.exit_counts, same.exit_counts)
    assert part.wrong_shares[2] == 0.0


def test_no_tuner_beats_the_oracle():
    errors, agrees, savings = typical_window(256, 3, seed=3)
    oracle = oracle_saving(agrees, savings)
    first_right = [row.argmax() if row.any() else 3 for row in agrees]
    assert oracle == pytest.approx(np.append(savings, 0.0)[first_right].mean())
    assert tune_thresholds(errors, agrees, savings, 0.0).saving <= oracle


def test_tunes_on_the_host_whatever_the_default_device():
    with jax.default_device(jax.devices()[0]):
        tuning = tune_thresholds(*GOOD)
    assert isinstance(tuning.thresholds, np.ndarray)
    assert tuning.thresholds.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"errors": np.zeros(4, np.float32)}, "expected \\[samples, ramps\\]"),
        ({"errors": np.zeros((0, 2), np.float32)}, "expected \\[samples, ramps\\]"),
        ({"errors": np.full((4, 2), -0.1)}, "1 - top probability"),
        ({"errors": np.full((4, 2), np.inf)}, "1 - top probability"),
        ({"agrees": np.ones((4, 3), bool)}, "bool\\[4, 3\\], expected bool\\[4, 2\\]"),
        ({"agrees": np.ones((4, 2))}, "float64\\[4, 2\\], expected bool"),
        ({"savings": [1.0]}, "expected \\[2\\] .one per ramp"),
        ({"savings": [1.0, 2.0]}, "not increase"),
        ({"savings": [1.0, -2.0]}, "not negative"),
        ({"savings": [np.nan, 1.0]}, "finite"),
        ({"savings": np.ones((3, 2))}, "one per sample and ramp"),
        ({"max_disagreement": 1.5}, "max_disagreement is 1.5"),
        ({"max_disagreement": float("nan")}, "max_disagreement is nan"),
        ({"method": "brute"}, "expected one of \\['exact', 'beam', .*'auto'\\]"),
    ],
)
def test_bad_input_says_what_was_expected(change: dict, message: str):
    good = dict(zip(("errors", "agrees", "savings"), GOOD, strict=True))
    with pytest.raises(ConfigError, match=message):
        tune_thresholds(**{**good, **change})


def test_bad_thresholds_are_refused():
    with pytest.raises(ConfigError, match="one per ramp"):
        evaluate_thresholds(*GOOD, [0.1])
