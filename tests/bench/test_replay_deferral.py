"""What a batch leaves to others, by hand: deferred, at once, as a shadow batch."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.bench.replay import ReplayConfig, replay
from apparate_jax.control.interface import fixed
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import always
from apparate_jax.core import ExitPlan
from apparate_jax.serve.engine import EngineConfig
from tests.bench import tiny
from tests.bench.test_replay import AT_ONCE, BOTH, errors, ms, script


def test_early_answers_do_not_free_the_device_where_nothing_is_deferred():
    stream = errors(*[[0.0, 0.0, 0.0]] * 3)
    made = replay(stream, fixed(BOTH), ms(0, 1, 2), AT_ONCE)
    np.testing.assert_allclose(made.answers.latency_ms, [3, 13, 23])


def test_a_shadow_batch_holds_up_the_next_one():
    shown = []
    plan = replace(BOTH, shadow_every=2)
    made = replay(tiny.recording(), script(plan, shown=shown), ms(0, 100, 101, 102), AT_ONCE)
    np.testing.assert_array_equal(made.batches.shadow, [False, True, False, True])
    # stages alone take 10 ms, no more than the whole: what is added is the head at site 1
    assert LatencyModel(tiny.STREAM).shadow_ms((0, 2), 1) == pytest.approx(0.2)
    np.testing.assert_allclose(made.batches.finished_s[1:3], ms(111, 122.2))
    assert [o.shadow is not None for o in shown] == [False, True, False, True]
    np.testing.assert_array_equal(shown[1].shadow.errors, tiny.recording().errors[1:2])
    np.testing.assert_array_equal(shown[1].shadow.agrees, tiny.recording().agrees[1:2])


# With the ramp of the first site alone: its answer, behind which the rest is held, after 3 ms,
# the end after 10.5; the rest takes 7.5 ms at once, 3, 2 and 3 ms in pieces.
FIRST = ExitPlan((0,), (0.1,))
RUN = ReplayConfig(load_policy=always)


def test_the_rest_of_an_answered_batch_lets_others_go_before_it_by_hand():
    shown, stream = [], errors(*[[0.0, 0.0, 0.0]] * 3)
    made = replay(stream, script(FIRST, shown=shown), ms(0, 1, 2), RUN)
    np.testing.assert_allclose(made.answers.latency_ms, [3, 5, 7])
    np.testing.assert_allclose(made.batches.started_s, ms(0, 3, 6))
    np.testing.assert_allclose(made.batches.finished_s, ms(17, 25, 33))
    assert len(shown) == 3


def test_who_comes_while_a_piece_is_run_waits_for_it():
    stream = errors(*[[0.0, 0.0, 0.0]] * 2)
    made = replay(stream, fixed(FIRST), ms(0, 4), RUN)
    np.testing.assert_allclose(made.batches.started_s, ms(0, 6))
    np.testing.assert_allclose(made.batches.finished_s, ms(14, 22))


def test_who_is_not_answered_goes_on_at_once():
    stream = errors([0.0, 0.9, 0.9], [0.9, 0.9, 0.9], [0.0, 0.9, 0.9])
    made = replay(stream, fixed(FIRST), ms(0, 1, 2), RUN)
    np.testing.assert_allclose(made.batches.started_s, ms(0, 3, 13.5))
    np.testing.assert_allclose(made.answers.latency_ms, [3, 12.5, 14.5])


def test_to_hold_a_batch_takes_the_time_that_was_measured():
    stream = errors([0.0, 0.9, 0.9], [0.9, 0.9, 0.9], [0.0, 0.9, 0.9])
    stream = replace(stream, profile=replace(tiny.STREAM, hold_ms=0.5))
    made = replay(stream, fixed(FIRST), ms(0, 1, 2), RUN)
    np.testing.assert_allclose(made.batches.started_s, ms(0, 3.5, 14.5))
    np.testing.assert_allclose(made.answers.latency_ms, [3, 13.5, 15.5])


def test_where_little_is_left_nothing_is_held():
    stream = replace(errors(*[[0.0, 0.0, 0.0]] * 3), depths=(0.95, 0.96, 0.97))
    made = replay(stream, fixed(FIRST), ms(0, 1, 2), RUN)
    np.testing.assert_allclose(made.batches.started_s, ms(0, 10.5, 21))


def test_a_deferred_batch_is_due_after_so_many_others():
    stream = errors(*[[0.0, 0.0, 0.0]] * 4)
    config = ReplayConfig(EngineConfig(defer=1), always)
    made = replay(stream, fixed(FIRST), ms(0, 1, 3, 6), config)
    # the third waits for what is left of the first, 7.5 ms, the fourth for that of the second
    np.testing.assert_allclose(made.batches.started_s, ms(0, 3, 13.5, 24))
    np.testing.assert_allclose(made.batches.finished_s, ms(13.5, 24, 35, 43))


def test_a_deferred_batch_is_due_where_checked_answers_are_scarce():
    stream = errors(*[[0.0, 0.0, 0.0]] * 3)
    made = replay(stream, fixed(replace(FIRST, exit_cap=2)), ms(0, 1, 2), RUN)
    # checking the first would make room for the third, had this policy taken it into account
    np.testing.assert_allclose(made.batches.started_s, ms(0, 3, 13.5))
    np.testing.assert_array_equal(made.answers.exits, [0, 0, 3])


# With the ramps of the first and third sites, answers after 2.5 and 8 ms, the end after 11: behind
# the first is 3 ms, then 2, the third's head 0.2, and 3.


def test_a_batch_is_held_behind_the_ramp_that_frees_most_by_hand():
    stream = errors(*[[0.0, 0.0, 0.0]] * 4)
    latency = LatencyModel(tiny.STREAM)
    first, third, end = (round(ms, 6) for ms in latency.answers_ms((0, 2), 1))
    made = replay(stream, fixed(BOTH), ms(0, 40, 41, 42), RUN)
    # nothing is known of the first batch: it is held behind the last ramp; all left at the first
    np.testing.assert_allclose(made.batches.started_s[1:], ms(40, 40 + first, 40 + 2 * first))
    assert latency.pieces_ms((0, 2), 1, 1) == pytest.approx((3.0, 2.0, 0.2, 3.0))
    assert latency.pieces_ms((0, 2), 1, 2) == pytest.approx((3.0,))
    assert first < third < end


def test_the_rest_of_who_left_before_the_hold_only_is_queued_at_once():
    rows = [[0.0, 0.9, 0.9]] * 3 + [[0.9, 0.9, 0.0]] + [[0.0, 0.9, 0.9]]
    made = replay(errors(*rows), fixed(BOTH), ms(0, 40, 80, 120, 121), RUN)
    first, third, end = LatencyModel(tiny.STREAM).answers_ms((0, 2), 1)
    # the fourth leaves behind the hold: it is answered there, and the fifth waits for its end
    assert made.answers.latency_ms[3] == pytest.approx(third)
    assert made.answers.latency_ms[4] == pytest.approx(end - 1 + first)
