"""What a batch runs, by the load that it sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import (
    ALIKE,
    EAGER,
    FULL,
    KEEPS,
    MANY,
    MOST,
    OFTEN,
    OVERDUE,
    QUIET,
    RATE_MEMORY,
    Busy,
    Capacity,
    Load,
    always,
    by_worth,
    capacity_of,
    keeps_up,
    next_busy,
    shadow_due,
    utilisation,
)
from apparate_jax.core import ExitPlan, Profile, ShapeProfile

PLAN = ExitPlan((1, 3), (0.1, 0.1), worth=10.0)


def full(waiting: int, rho: float = 0.5) -> Load:
    return Load(8, waiting, 8, rho)


def one(waiting: int = 0, rho: float = 0.0) -> Load:
    return Load(1, waiting, 8, rho)


def profile_of(took_ms: dict[int, float], spread: tuple[float, ...] = ()) -> LatencyModel:
    shapes = [ShapeProfile(n, ms, ms, (), (), (), spread=spread) for n, ms in took_ms.items()]
    return LatencyModel(Profile("a device", "0.0", (), tuple(shapes)))


def test_ramps_run_where_nobody_waits_and_not_under_saturation():
    assert by_worth(PLAN, full(0)) == (1, 3)
    assert by_worth(PLAN, full(0, 1.0)) == (1, 3)
    assert by_worth(PLAN, full(1, 1.0)) == ()
    assert by_worth(PLAN, full(8 * MANY - 1)) == (1, 3)
    assert by_worth(PLAN, full(8 * MANY)) == ()
    assert by_worth(ExitPlan(), full(0)) == ()


def test_always_is_always():
    assert always(PLAN, full(100, 1.0)) == (1, 3)


@given(st.integers(0, 20), st.floats(0.0, 1.0), st.floats(0.0, 100.0))
def test_worth_decides_whoever_waits(waiting: int, rho: float, worth: float):
    plan = ExitPlan((1,), (0.1,), worth=worth)
    runs = by_worth(plan, full(waiting, rho)) == (1,)
    if waiting == 0:
        assert runs, "nobody is delayed, and feedback goes on"
    elif rho > FULL or waiting >= 8 * MANY:
        assert not runs
    else:
        assert runs == (8 * worth >= waiting / (1.0 - rho))


def test_more_load_never_brings_ramps_back():
    for waiting in range(1, 80):
        runs = [bool(by_worth(PLAN, full(waiting, rho / 100))) for rho in range(101)]
        assert runs == sorted(runs, reverse=True)


def busy_after(seconds: float, rate_rps: float, taken: int, capacity: Capacity) -> Busy:
    busy, every_s = Busy(), taken / rate_rps
    for number in range(int(seconds / every_s)):
        busy = next_busy(busy, taken, 8, number * every_s, capacity)
    return busy


@pytest.mark.parametrize(("taken", "fill"), [(1, 0.0), (6, 5 / 7), (8, 1.0)])
def test_the_fill_follows_the_batches(taken: int, fill: float):
    assert busy_after(20.0, 100.0, taken, Capacity()).fill == pytest.approx(fill, abs=1e-3)


def test_a_device_without_batches_is_not_full_of_them():
    assert next_busy(Busy(), 1, 1, 0.0, Capacity()).fill == 0.0


@pytest.mark.parametrize("taken", [1, 2, 8])
def test_the_rate_follows_the_requests(taken: int):
    capacity = Capacity(memory_s=2.0)
    busy = busy_after(20.0, 100.0, taken, capacity)
    assert busy.rate_rps == pytest.approx(100.0, rel=0.06)
    later = next_busy(busy, 1, 8, busy.since_s + 20.0, capacity)
    assert later.rate_rps < 1.0, "a pause is forgotten soon"


def test_capacity_is_that_of_the_best_shape_with_the_spread_of_single_runs():
    capacity = capacity_of(profile_of({1: 10.0, 4: 20.0, 8: 48.0}, spread=(0.9, 1.0, 1.4)))
    assert capacity.least_s == pytest.approx(0.005 * 1.1)
    assert capacity.pair_s == pytest.approx(0.010 * 1.1)
    assert capacity.memory_s == pytest.approx(0.048 * 1.1 * RATE_MEMORY)
    assert capacity_of(profile_of({1: 10.0})) == pytest.approx((0.01, 0.01, 0.01 * RATE_MEMORY))


def test_utilisation_is_the_larger_of_both_and_of_the_rate_never_saturation():
    assert utilisation(Busy(0.7, 50.0), Capacity(0.008)) == 0.7
    assert utilisation(Busy(0.2, 1e6), Capacity(0.008)) == MOST
    assert utilisation(Busy(1.0, 1e6), Capacity(0.008)) == 1.0
    assert utilisation(Busy(0.3, 50.0), Capacity()) == 0.3, "without a profile"


def test_small_batches_are_kept_up_with_or_cost_nothing():
    gains, alike = Capacity(0.005, 0.01), Capacity(0.005, 0.005 * ALIKE)
    assert keeps_up(Busy(rate_rps=KEEPS / 0.01), gains)
    assert not keeps_up(Busy(rate_rps=1.01 * KEEPS / 0.01), gains)
    assert keeps_up(Busy(rate_rps=1e6), alike)
    assert keeps_up(Busy(rate_rps=1e6), Capacity())


def test_shadow_batches_wait_for_a_quiet_moment_and_come_late_under_load():
    assert not shadow_due(100, 0, one()), "never"
    assert not shadow_due(15, 16, one()) and shadow_due(16, 16, one())
    assert not any(shadow_due(since, 16, one(1)) for since in range(OVERDUE * 16))
    assert shadow_due(OVERDUE * 16, 16, one(1))
    assert not shadow_due(1000, 16, one(8)), "a whole further batch waits"


@pytest.mark.parametrize(("rho", "interval"), [(0.5, 32), (0.75, 64), (0.9, 160), (1.0, 320)])
def test_shadow_batches_are_the_rarer_the_busier_the_device_is(rho: float, interval: int):
    assert not shadow_due(interval - 1, 16, one(0, rho))
    assert shadow_due(interval + 1, 16, one(0, rho))
    assert not shadow_due(OVERDUE * interval - 1, 16, one(1, rho))
    assert shadow_due(OVERDUE * interval + 1, 16, one(1, rho))


def test_the_first_shadow_batches_come_whatever_the_load():
    assert shadow_due(EAGER, EAGER, one(0, 1.0))
    assert not shadow_due(OVERDUE * EAGER - 1, EAGER, one(1, 1.0))
    assert shadow_due(OVERDUE * EAGER, EAGER, one(1, 1.0))


def test_shadow_batches_come_more_often_where_nobody_shares_the_device():
    every = 4 * OFTEN
    assert shadow_due(4, every, one(), alone=QUIET)
    assert not shadow_due(3, every, one(), alone=QUIET)
    assert not shadow_due(4, every, one(), alone=QUIET - 1)
    assert shadow_due(1, 2, one(), alone=QUIET), "never less than one batch between"
    assert not shadow_due(100, 0, one(), alone=QUIET), "never is never"
