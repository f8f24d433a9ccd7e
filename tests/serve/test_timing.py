"""What policies are told of time: the profile, the device, and what comes."""

import math
from dataclasses import replace

import pytest

from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import Profile, ShapeProfile
from apparate_jax.serve.occupancy import ENOUGH, Occupancy, Pace
from apparate_jax.serve.policies import Device
from apparate_jax.serve.timing import MEMORY, Forecast, spread_at, timing_of

SPREAD = (0.9, 1.0, 1.2, 1.5)
SHAPES = (
    ShapeProfile(1, 10.0, 11.0, (3.0,), (5.0,), (0.1,), 5.0, SPREAD),
    ShapeProfile(4, 30.0, 29.0, (6.0,), (15.0,), (0.4,), 15.0, SPREAD),
)
LATENCY = LatencyModel(Profile("paper", "0", (0,), SHAPES, handling_ms=2.0))


def test_a_batch_takes_the_slower_of_both_programs_at_its_quantile():
    worst = timing_of(LATENCY, (0,), (1, 4), 1.0)
    assert worst.shapes == (1, 1, 4, 4, 4) and worst.largest == 4
    assert worst.seconds == pytest.approx((0.0165, 0.0165, 0.045, 0.045, 0.045))
    assert worst.handling_s == pytest.approx(0.002) and worst.enough == 4
    assert timing_of(LATENCY, (), (1, 4), 0.5).seconds == pytest.approx((0.01, 0.01, *[0.03] * 3))


def test_a_larger_batch_is_never_quicker():
    odd = (SHAPES[0], replace(SHAPES[1], vanilla_ms=8.0, total_ms=8.0))
    model = LatencyModel(Profile("paper", "0", (0,), odd))
    assert timing_of(model, (), (1, 4), 0.5).seconds == pytest.approx((0.01,) * 5)


@pytest.mark.parametrize(("quantile", "factor"), [(0.01, 0.9), (0.25, 0.9), (0.3, 1.0), (1.0, 1.5)])
def test_quantiles_are_the_next_larger_that_was_measured(quantile, factor):
    assert spread_at(SHAPES[0], quantile) == factor
    assert spread_at(replace(SHAPES[0], spread=()), quantile) == 1.0


def test_batches_run_one_after_another():
    device = Occupancy(2)
    assert device.at(1.0) == Device((), -math.inf, 2)
    device.begin(1.0, 0.5)
    device.begin(1.1, 0.25)
    assert device.at(1.2).ends_s == (1.5, 1.75)
    assert device.at(1.6).ends_s == (1.6, 1.85), "the first is late, and so is the second"
    assert device.at(1.2, pace=2.0).ends_s == (2.0, 2.5)
    assert device.end(1.7) is None, "nothing was before it"
    assert device.at(1.7) == Device((1.95,), 1.7, 2)
    assert device.end(1.9) == pytest.approx(0.2 / 0.25), "since the other ended"
    assert device.at(2.0) == Device((), 1.9, 2)


def test_a_forecast_is_of_the_plan_and_of_shadow_batches():
    forecast = Forecast((1, 4), 2, LATENCY)
    device, timing = forecast.look(0.0, ())
    assert device.ends_s == () and timing.seconds[1] == pytest.approx(0.015)
    assert forecast.look(0.0, (0,))[1].seconds[1] == pytest.approx(0.0165)
    forecast.begin(0.0, 1, (0,), (), shadow=False)
    forecast.begin(0.0, 1, (0,), (), shadow=True)
    first_s, second_s = forecast.look(0.0, ())[0].ends_s
    assert first_s == pytest.approx(0.002 + 0.0165)
    assert second_s == pytest.approx(first_s + 0.0165 + LATENCY.shadow_ms((), 1) / 1e3)
    forecast.end(0.010)
    assert len(forecast.look(0.010, ())[0].ends_s) == 1


def test_the_pace_is_that_of_slow_batches_and_forgotten_with_time():
    pace = Pace(2.0)
    for step in range(ENOUGH):
        assert pace.at(step / 10) == 1.0, "too few say so"
        pace.add(step / 10, 1.2 if step % 2 else 1.31)
    last_s = (ENOUGH - 1) / 10
    assert pace.at(last_s) == pytest.approx(1.35), "the next step above the slow ones"
    assert pace.at(last_s + 2.0) == pytest.approx(1.35) and pace.at(last_s + 2.1) == 1.0
    for step in range(ENOUGH):
        pace.add(10.0 + step / 10, 1.0 + 1e-9)
    assert pace.at(10.0 + last_s) == 1.0, "the profile is what is promised"


def test_a_device_slower_than_its_profile_is_reckoned_with():
    forecast, now_s = Forecast((1, 4), 2, LATENCY), 0.0
    forecast.begin(now_s, 4, (), (), shadow=False)
    for _ in range(ENOUGH + 1):  # the first one says nothing
        forecast.begin(now_s, 4, (), (), shadow=False)
        now_s += 1.5 * 0.045
        forecast.end(now_s)
    device, timing = forecast.look(now_s, ())
    assert timing.seconds[4] == pytest.approx(1.5 * 0.045)
    assert device.ends_s == pytest.approx((now_s + 1.5 * 0.045,))
    assert forecast.look(now_s + MEMORY, ())[1].seconds[4] == pytest.approx(0.045)


def test_the_rate_of_arrivals_is_remembered_for_a_while():
    forecast = Forecast((1, 4), 2, LATENCY)
    for step in range(2000):
        forecast.came(step / 100)
    assert forecast.look(20.0, ())[0].coming_rps == pytest.approx(100.0, rel=0.02)
    later = forecast.look(20.0 + MEMORY * 0.030, ())[0].coming_rps
    assert later == pytest.approx(100.0 / math.e, rel=0.02)


def test_nothing_is_kept_for_policies_that_do_not_ask():
    forecast = Forecast((1, 4), 2)
    forecast.came(0.0)
    forecast.begin(0.0, 1, (), (), shadow=False)
    device, timing = forecast.look(1.0, ())
    assert (device, set(timing.seconds)) == (Device(limit=2), {0.0})
    forecast.end(1.0)
