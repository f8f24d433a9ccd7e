"""What a batch runs, by the load that it sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.control.load import (
    OFTEN,
    OVERDUE,
    QUIET,
    Load,
    always,
    amplification,
    by_worth,
    next_fill,
    shadow_due,
)
from apparate_jax.core import ExitPlan

PLAN = ExitPlan((1, 3), (0.1, 0.1), worth=10.0)


def full(waiting: int, fill: float = 0.5) -> Load:
    return Load(8, waiting, 8, fill)


def test_none_once_a_whole_batch_waits():
    assert by_worth(PLAN, full(0)) == (1, 3)
    assert by_worth(PLAN, full(7)) == (1, 3)
    assert by_worth(PLAN, full(8)) == ()
    assert by_worth(ExitPlan(), full(0)) == ()


def test_always_is_always():
    assert always(PLAN, full(100, 1.0)) == (1, 3)


@given(st.integers(0, 20), st.floats(0.0, 1.0), st.floats(0.0, 100.0))
def test_worth_decides_whoever_waits(waiting: int, fill: float, worth: float):
    plan = ExitPlan((1,), (0.1,), worth=worth)
    runs = by_worth(plan, full(waiting, fill)) == (1,)
    if waiting == 0:
        assert runs, "nobody is delayed, and feedback goes on"
    elif waiting >= 8 or fill > 0.99:
        assert not runs
    else:
        assert runs == (8 * worth >= waiting * amplification(fill))


def test_more_load_never_brings_ramps_back():
    for waiting in range(1, 8):
        runs = [bool(by_worth(PLAN, full(waiting, fill / 100))) for fill in range(101)]
        assert runs == sorted(runs, reverse=True)
    assert by_worth(PLAN, full(1, 1.0)) == ()


def test_amplification_is_that_of_a_queue():
    assert amplification(0.0) == 1.0
    assert amplification(0.5) == pytest.approx(2.5)
    assert amplification(0.8) == pytest.approx(13.0)
    assert amplification(0.9) == pytest.approx(50.5)


def test_fill_follows_the_batches():
    fill = 0.0
    for _ in range(200):
        fill = next_fill(fill, 6, 8)
    assert fill == pytest.approx(0.75, abs=1e-3)


def test_shadow_batches_wait_for_a_quiet_moment_and_come_late_under_load():
    assert not shadow_due(100, 0, 0, 8), "never"
    assert not shadow_due(15, 16, 0, 8) and shadow_due(16, 16, 0, 8)
    assert not any(shadow_due(since, 16, 1, 8) for since in range(OVERDUE * 16))
    assert shadow_due(OVERDUE * 16, 16, 1, 8)
    assert not shadow_due(1000, 16, 8, 8), "a whole further batch waits"


def test_shadow_batches_come_more_often_where_nobody_shares_the_device():
    every = 4 * OFTEN
    assert shadow_due(4, every, 0, 8, alone=QUIET) and not shadow_due(3, every, 0, 8, alone=QUIET)
    assert not shadow_due(4, every, 0, 8, alone=QUIET - 1)
    assert shadow_due(1, 2, 0, 8, alone=QUIET), "never less than one batch between"
    assert not shadow_due(100, 0, 0, 8, alone=QUIET), "never is never"
