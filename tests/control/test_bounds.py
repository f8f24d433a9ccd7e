"""Clopper-Pearson against the binomial distribution, summed in plain words."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.control.bounds import trusted_budgets


def at_most(k: int, samples: int, rate: float) -> float:
    return sum(math.comb(samples, i) * rate**i * (1 - rate) ** (samples - i) for i in range(k + 1))


@given(st.integers(1, 120), st.floats(0.001, 0.5), st.sampled_from([0.05, 0.25, 0.5]))
def test_the_largest_count_that_is_unlikely_at_the_rate(samples: int, rate: float, delta: float):
    (found,) = trusted_budgets(samples, [rate], delta).tolist()
    assert found == -1 or at_most(found, samples, rate) <= delta + 1e-9
    assert found >= math.ceil(rate * samples) or at_most(found + 1, samples, rate) > delta - 1e-9


def test_grows_with_rate_and_samples():
    rates = [0.0, 0.0025, 0.005, 0.01, 0.015]
    table = np.stack([trusted_budgets(n, rates, 0.5) for n in (0, 64, 512, 4096)])
    assert (np.diff(table, axis=0) >= 0).all() and (np.diff(table, axis=1) >= 0).all()
    assert (table[0] == -1).all() and (table[:, 0] == -1).all()
    assert table[3, 3] == pytest.approx(0.01 * 4096, abs=1)


def test_everything_is_allowed_at_a_rate_of_one():
    assert trusted_budgets(10, [1.0], 0.5).tolist() == [10]
