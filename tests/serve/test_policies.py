"""Policies alone: what they decide. What they promise is in tests/bench/test_forming.py."""

import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.errors import ConfigError
from apparate_jax.serve.line import Line
from apparate_jax.serve.policies import (
    Decision,
    Device,
    Timing,
    ahead,
    immediate,
    slo,
    timeout,
    untimed,
)

SIZES = untimed((1, 2, 4))
TIMING = Timing((1, 1, 2, 4, 4), (0.010, 0.010, 0.016, 0.020, 0.020), enough=4)
IDLE = Device()


class One(NamedTuple):
    arrived_s: float = 0.0
    deadline_s: float = math.inf
    priority: int = 1


def line(*entries, levels=1, by_deadline=False):
    made = Line(levels, by_deadline=by_deadline)
    for entry in entries:
        made.add(entry)
    return made


def due(*deadlines_s):
    return line(*(One(0.0, at) for at in deadlines_s), by_deadline=True)


@pytest.mark.parametrize(("count", "size", "shape"), [(1, 1, 1), (3, 3, 4), (4, 4, 4), (9, 4, 4)])
def test_immediate_takes_as_many_as_fit(count, size, shape):
    assert immediate.form(line(*[One()] * count), 0.0, IDLE, SIZES) == (size, (), shape, math.inf)


def test_immediate_drops_those_that_are_late():
    entries = [One(0.0, at) for at in (0.5, 2.0, 0.9, 1.0, 3.0, 3.0, 0.1, 9.0)]
    assert immediate.form(line(*entries), 1.0, IDLE, SIZES) == (7, (0, 2, 6), 4, math.inf)
    assert immediate.form(line(One(0.0, 0.5)), 1.0, IDLE, SIZES) == (1, (0,), 0, math.inf)


def test_timeout_waits_for_the_oldest_alive():
    form = timeout(0.010).form
    assert form(line(One(1.0), One(1.004)), 1.005, IDLE, SIZES) == Decision(0, (), 0, 1.010)
    assert form(line(One(1.0), One(1.004)), 1.010, IDLE, SIZES) == Decision(2, (), 2)
    assert form(line(*[One(1.0)] * 4), 1.0, IDLE, SIZES) == Decision(4, (), 4)
    late, alive = One(0.5, 0.9), One(1.0)
    assert form(line(late, alive), 1.005, IDLE, SIZES) == Decision(1, (0,), 0, 1.010)
    assert form(line(alive, late), 1.005, IDLE, SIZES) == Decision(0, (), 0, 1.010)
    assert form(line(alive, late), 1.010, IDLE, SIZES) == Decision(2, (1,), 1)
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="the batch timeout is"):
            timeout(bad)


def test_slo_takes_the_largest_batch_that_is_in_time():
    assert slo.form(due(0.020, 1.0, 1.0, 1.0), 0.0, IDLE, TIMING) == Decision(4, (), 4)
    assert slo.form(due(0.016, 1.0, 1.0, 1.0), 0.0, IDLE, TIMING) == Decision(2, (), 2)
    assert slo.form(due(0.015, 1.0, 1.0, 1.0), 0.0, IDLE, TIMING) == Decision(1, (), 1)
    assert slo.form(due(0.009, 0.016, 1.0), 0.0, IDLE, TIMING) == Decision(3, (0,), 2)
    assert slo.form(due(0.009), 0.0, IDLE, TIMING) == Decision(1, (0,), 0)
    behind = Device((0.005, 0.015), 0.0, 2)
    assert slo.form(due(0.031, 0.031), 0.0, behind, TIMING) == Decision(2, (), 2)
    handled = TIMING._replace(handling_s=0.002)
    assert slo.form(due(0.017, 0.017), 0.0, IDLE, handled) == Decision(1, (), 1)


def test_slo_admits_whom_it_can_answer_in_time():
    assert slo.admit(due(), One(0.0, 0.010), 0.0, IDLE, TIMING)
    assert not slo.admit(due(), One(0.0, 0.009), 0.0, IDLE, TIMING)
    # two go together and end at 16; a batch of four would be too slow for them
    assert slo.admit(due(0.016, 0.017), One(0.0, 0.026), 0.0, IDLE, TIMING)
    assert not slo.admit(due(0.016, 0.017), One(0.0, 0.025), 0.0, IDLE, TIMING)
    # an earlier deadline goes first, and makes the one that waits late
    assert not slo.admit(due(0.019), One(0.0, 0.010), 0.0, IDLE, TIMING)
    assert slo.admit(due(0.020), One(0.0, 0.010), 0.0, IDLE, TIMING)


def test_slo_puts_higher_levels_before_promises_to_lower_ones():
    waits = line(One(0.0, 0.012, 2), levels=2, by_deadline=True)
    assert slo.admit(waits, One(0.0, 0.012, 1), 0.0, IDLE, TIMING)
    assert not slo.admit(waits, One(0.0, 0.015, 2), 0.0, IDLE, TIMING)


def test_slo_expects_more_to_come():
    """The next batch begins in 20 ms: at 200 a second four more will have joined it by then."""
    busy = Device((0.020,), 0.0, 1)
    assert slo.admit(due(), One(0.0, 0.030), 0.0, busy, TIMING)
    assert not slo.admit(due(), One(0.0, 0.030), 0.0, busy._replace(coming_rps=200.0), TIMING)
    assert slo.admit(due(), One(0.0, 0.040), 0.0, busy._replace(coming_rps=200.0), TIMING)
    assert slo.admit(due(), One(0.0, 0.010), 0.0, IDLE._replace(coming_rps=200.0), TIMING)
    one_is_enough = TIMING._replace(enough=1)
    coming = busy._replace(coming_rps=200.0)
    assert slo.admit(due(), One(0.0, 0.030), 0.0, coming, one_is_enough)


def test_slo_blames_no_newcomer_for_those_who_are_late_anyway():
    """A batch took longer than the profile says: one cannot be met, the newcomer can."""
    late = due(0.005)
    assert slo.admit(late, One(0.0, 0.010), 0.0, IDLE, TIMING)


moments = st.floats(0.0, 0.2)


@given(st.lists(st.tuples(moments, st.integers(1, 3)), max_size=30), st.integers(1, 3), moments)
def test_batches_ahead_hold_everybody_once_and_are_in_time(entries, limit, now_s):
    waits = line(*(One(0.0, *entry) for entry in entries), levels=3, by_deadline=True)
    order, next_one = list(waits), 0
    for first, batch, formed_s, start_s in ahead(order, now_s, Device(limit=limit), TIMING):
        assert first == next_one and batch.size > 0 and now_s <= formed_s <= start_s
        next_one += batch.size
        taken = [order[first + i] for i in range(batch.size) if i not in batch.late]
        assert len(taken) <= 4 and bool(batch.shape) == bool(taken)
        ends_s = start_s + TIMING.seconds[len(taken)]
        assert all(one.deadline_s >= ends_s - 1.1e-6 for one in taken)
        rejected = [order[first + i] for i in batch.late]
        assert all(one.deadline_s < start_s + TIMING.seconds[1] for one in rejected)
    assert next_one == len(order)


class Numbered(NamedTuple):
    number: int
    deadline_s: float
    priority: int
    arrived_s: float = 0.0


deadlines = st.sampled_from([0.0, 1.0, 2.0, math.inf])
steps = st.lists(
    st.tuples(st.just("add"), deadlines, st.integers(1, 3))
    | st.tuples(st.just("pop"), st.integers(0, 5))
    | st.tuples(st.just("passed"), st.sampled_from([0.5, 1.0, 2.5])),
    max_size=60,
)


@given(steps, st.booleans())
def test_the_line_is_sorted_and_stable(actions, by_deadline):
    """Against a list that is sorted each time."""
    made, model = Line(3, by_deadline=by_deadline), []
    for number, (what, *values) in enumerate(actions):
        if what == "add":
            one = Numbered(number, *values)
            made.add(one)
            model.append(one)
            model.sort(key=lambda e: (e.priority, e.deadline_s if by_deadline else 0.0, e.number))
        elif what == "pop":
            assert made.pop(values[0]) == model[: values[0]]
            del model[: values[0]]
        else:
            late = [one for one in model if one.deadline_s < values[0]]
            assert made.pop_passed(values[0]) == late
            model = [one for one in model if one not in late]
        assert list(made) == model and len(made) == made.count == len(model)
        assert made.dated == sum(one.deadline_s < math.inf for one in model)
