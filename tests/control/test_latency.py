"""Latencies of sets that were not measured, from the one that was."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import Profile, ShapeProfile

SHAPES = (
    ShapeProfile(1, 10.0, 10.6, (3.0, 8.0), (2.0, 5.0, 7.0), (0.1, 0.2, 0.1), 3.0),
    ShapeProfile(4, 20.0, 20.4, (6.0, 16.0), (4.0, 12.0, 16.0), (0.1, 0.2, 0.1), 8.0),
)
MODEL = LatencyModel(Profile("test", "0", (0, 2), SHAPES))


def test_the_measured_set_is_as_it_was_measured():
    assert MODEL.answers_ms((0, 2), 1) == (3.0, 8.0, 10.6)
    assert MODEL.savings_ms((0, 2), 1) == pytest.approx((7.6, 2.6))
    assert MODEL.overhead_ms((0, 2), 1) == pytest.approx(0.6)


def test_no_ramps_are_the_original_model():
    assert MODEL.answers_ms((), 4) == (20.0,)
    assert MODEL.overhead_ms((), 4) == 0.0 and MODEL.savings_ms((), 4) == ()


def test_heads_share_out_what_the_measured_set_adds():
    np.testing.assert_allclose(MODEL.costs_ms(1), [0.3, 0.6, 0.3])
    assert MODEL.costs_ms(1)[[0, 2]].sum() == pytest.approx(MODEL.overhead_ms((0, 2), 1))


def test_another_set_lies_between_what_was_measured():
    # the measured ramps add 0.3 ms each: their sites are reached after 2.7 and 7.4 ms; site 1 lies
    # at three of the five ms that the stages between them take alone, and its ramp costs 0.6
    answer, total = MODEL.answers_ms((1,), 1)
    assert total == pytest.approx(10.0 + 0.6)
    assert answer == pytest.approx(2.7 + 3 / 5 * 4.7 + 0.6)
    assert MODEL.answers_ms((0,), 1) == pytest.approx((3.0, 10.3))
    assert MODEL.answers_ms((0, 1, 2), 1)[1:] == pytest.approx((6.42, 8.6, 11.2))


def test_sites_lie_at_their_shares_where_no_set_was_measured():
    bare = LatencyModel(Profile("test", "0", (), SHAPES))
    assert bare.answers_ms((1,), 1) == pytest.approx((5.2, 10.2))


def test_stages_that_are_faster_than_the_original_are_so_for_every_set():
    shape = replace(SHAPES[0], total_ms=8.0, release_ms=(1.0, 6.0))
    model = LatencyModel(Profile("test", "0", (0, 2), (shape,)))
    assert model.answers_ms((0, 2), 1) == (1.0, 6.0, 8.0)
    assert model.answers_ms((1,), 1) == pytest.approx((1.0 + 3 / 5 * 5.0, 8.0))
    assert model.overhead_ms((1,), 1) == 0.0
    assert model.answers_ms((), 1) == (10.0,)


def test_savings_never_rise_along_the_ramps():
    shape = ShapeProfile(1, 10.0, 10.0, (5.0, 4.9), (2.0, 5.0), (0.1, 0.1), 3.0)
    model = LatencyModel(Profile("noisy", "0", (0, 1), (shape,)))
    assert model.savings_ms((0, 1), 1) == (5.0, 5.0)


def test_a_batch_between_two_shapes_is_padded():
    assert MODEL.batches == (1, 4)
    assert MODEL.answers_ms((0, 2), 3) == MODEL.answers_ms((0, 2), 4)


def test_a_shadow_batch_costs_its_cuts_and_the_other_heads():
    assert MODEL.shadow_ms((0, 2), 1) == pytest.approx(0.2)
    assert MODEL.shadow_ms((), 4) == pytest.approx((16.0 + 8.0 - 20.0) + 0.4)


def test_heads_cost_what_they_take_alone_where_no_set_was_measured():
    bare = LatencyModel(Profile("test", "0", (), SHAPES))
    np.testing.assert_allclose(bare.costs_ms(1), SHAPES[0].ramp_ms)


def test_a_rest_slows_what_comes_after():
    plain = MODEL.profile
    slow = LatencyModel(replace(plain, rest_ms=(0.0, 10.0, 50.0), rest_factors=(1.0, 1.2, 2.0)))
    assert [slow.rest_factor(ms) for ms in (0.0, 5.0, 10.0, 30.0, 50.0, 1e9)] == pytest.approx(
        [1.0, 1.1, 1.2, 1.6, 2.0, 2.0]
    )
    assert slow.rest_factor(float("inf")) == 2.0
    assert MODEL.rest_factor(1e9) == 1.0, "not measured"
