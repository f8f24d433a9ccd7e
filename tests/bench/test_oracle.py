"""The oracle: the earliest right site of each input, by brute force, and what that saves."""

import numpy as np
import pytest

from apparate_jax.bench.oracle import earliest_right, oracle_latency_ms
from apparate_jax.data import ArrayDataset
from apparate_jax.graph import trace
from tests.bench import tiny
from tests.serve import models


def test_the_earliest_right_site_against_brute_force():
    model = models.mlp()
    program = trace(model.apply, model.params, *model.example_inputs(2))
    ramps = models.ramps(program)
    x = np.stack([models.example(seed)["x"] for seed in range(61)])
    seen = []
    data = ArrayDataset("x", (x,))
    found = earliest_right(program, model, ramps, data, lambda *step: seen.append(step[:2]))
    hidden = np.tanh(x @ model.params[0])
    values = [hidden, np.tanh(hidden @ model.params[1])]
    answers = (values[1] @ model.params[2]).argmax(1)
    rights = [
        (value @ ramp.params["kernel"]).argmax(1) == answers
        for value, ramp in zip(values, ramps, strict=True)
    ]
    expected = np.where(rights[0], 0, np.where(rights[1], 1, 2))
    assert set(expected) == {0, 1, 2}, "inputs of every kind"
    np.testing.assert_array_equal(found, expected)
    assert seen[-1] == (61, 61)


def test_only_sites_with_a_ramp_count():
    model = models.mlp()
    program = trace(model.apply, model.params, *model.example_inputs(2))
    x = np.stack([models.example(seed)["x"] for seed in range(20)])
    second = models.ramps(program)[1:]
    found = earliest_right(program, model, second, ArrayDataset("x", (x,)))
    assert set(found) <= {1, 2}
    assert (earliest_right(program, model, (), ArrayDataset("x", (x,))) == 2).all()


def test_what_leaving_there_saves_by_hand():
    """Site times are those of stages run alone: only their share counts."""
    one = tiny.answers([30.0, 30.0, 30.0], shape=1)
    # At batch 1 the sites stand at 4/10 and 10/10 of 10 ms; site 2 is no site, the end.
    np.testing.assert_allclose(
        oracle_latency_ms(one, np.array([0, 1, 2]), tiny.PROFILE), [24.0, 30.0, 30.0]
    )
    four = tiny.answers([30.0], shape=4)
    np.testing.assert_allclose(oracle_latency_ms(four, np.array([0]), tiny.PROFILE), [18.0])


def test_nothing_is_saved_where_no_site_is_right():
    latency = np.random.default_rng(0).uniform(20, 50, 8)
    made = oracle_latency_ms(tiny.answers(latency), np.full(8, 2), tiny.PROFILE)
    np.testing.assert_array_equal(made, latency)


@pytest.mark.parametrize("shape", [1, 4])
def test_earlier_is_never_later(shape):
    answers = tiny.answers(np.full(3, 40.0), shape=shape)
    made = oracle_latency_ms(answers, np.array([0, 1, 2]), tiny.PROFILE)
    assert made[0] < made[1] <= made[2] <= 40.0
