"""Batching on the virtual clock: what each policy promises, and that the engine does the same."""

import math
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apparate_jax.bench.replay import ReplayConfig, replay, saturate
from apparate_jax.bench.replay_result import REASONS
from apparate_jax.bench.workload import arrivals
from apparate_jax.control.interface import fixed
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import always
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError, QueueFullError
from apparate_jax.serve.batching import Request, RequestQueue
from apparate_jax.serve.engine_config import BatchingConfig, EngineConfig
from apparate_jax.serve.timing import Forecast
from tests.bench import tiny

VANILLA = fixed(ExitPlan())
STREAM = tiny.recording()
CAPACITY = 4 / 0.020
"""Requests per second of the profile in tests/bench/tiny.py: 10, 16 and 20 ms for 1, 2 and 4."""
TIMEOUT_S = 0.005
EXACT = 1e-6 + 1e-9
"""A deadline is met by an answer that is late by no more than this, seconds."""


def config(policy="immediate", in_flight=2, queue_size=1024, refuse=True, **named):
    batching = BatchingConfig(policy, timeout_ms=TIMEOUT_S * 1e3, **named)
    return ReplayConfig(EngineConfig(in_flight, queue_size, batching), always, refuse=refuse)


gaps = st.lists(st.sampled_from([0.0, 0.0005, 0.003, 0.007, 0.0111, 0.03]), min_size=1, max_size=70)
policies = st.sampled_from(
    [
        config(),
        config("timeout"),
        config("slo", slo_ms=45.0),
        config("slo", 1, slo_ms=30.0),
        config("immediate", 1, queue_size=5, priority_levels=3),
        config("timeout", 3, priority_levels=3),
        config("slo", 2, slo_ms=70.0, priority_levels=3),
    ]
)


def drawn(data, count, levels):
    """Deadlines (for some of them) and levels of so many requests."""
    more = data.draw(st.lists(st.sampled_from([math.inf, 0.0, 0.02, 0.05]), min_size=count))
    level = data.draw(st.lists(st.integers(1, levels), min_size=count))
    return np.asarray(more[:count]), level[:count]


def overload(load, count, seed=0, bursts=False):
    """Poisson arrivals, or all of them in bursts of up to 20."""
    times = arrivals("poisson", load * CAPACITY, count, seed=seed)
    return np.repeat(times[::20], 20)[:count] if bursts else times


# The engine's queue on the same arrivals.


def driven(times, due, levels, settled):
    """The engine's own queue, its policy and forecast, with a clock by hand and an exact device."""
    latency, engine = LatencyModel(STREAM.profile), settled.engine
    policy = engine.batching.make()
    forecast = Forecast(latency.batches, engine.max_in_flight, latency if policy.timed else None)
    now = [0.0]
    queue = RequestQueue(
        engine.queue_size,
        lambda at_s: forecast.look(at_s, ()),
        policy,
        levels=engine.batching.priority_levels,
        clock=lambda: now[-1],
        came=forecast.came,
    )
    requests = [
        Request((), at_s, deadline_s=due_s, priority=level)
        for at_s, due_s, level in zip(times, due, levels, strict=True)
    ]
    coming, ends, batches, free_s = deque(requests), deque(), [], 0.0
    while coming or len(queue) or ends:
        room = len(ends) < engine.max_in_flight
        polled = queue.poll(now[-1]) if room else math.inf
        if isinstance(polled, tuple):
            taken, shape = polled
            free_s = max(now[-1], free_s) + latency.vanilla_ms(shape) / 1e3
            ends.append(free_s)
            forecast.begin(now[-1], len(taken), (), (), shadow=False)
            batches.append([requests.index(one) for one in taken])
            continue
        arrives_s = coming[0].arrived_s if coming else math.inf
        at_s = min(polled, arrives_s, ends[0] if ends else math.inf)
        if at_s == math.inf:
            break
        now.append(at_s)
        while ends and ends[0] <= at_s:
            forecast.end(ends.popleft())
        while coming and coming[0].arrived_s <= at_s:
            try:
                queue.put(coming.popleft())
            except (QueueFullError, RuntimeError):
                continue
    return batches


@settings(max_examples=120, deadline=None)
@given(st.data(), gaps, policies)
def test_the_engines_queue_forms_the_same_batches(data, gaps, settled):
    times = np.cumsum(gaps)
    batching = settled.engine.batching
    more, levels = drawn(data, len(times), batching.priority_levels)
    due = times + np.minimum(more, batching.due_after_s)
    wanted = driven(times.tolist(), due.tolist(), levels, settled)
    if not wanted:
        return
    made = replay(STREAM, VANILLA, times, settled, deadlines_s=due, priorities=levels)
    batches = [made.requests[made.batch == b].tolist() for b in range(len(made.batches.size))]
    assert batches == [sorted(batch) for batch in wanted]


@settings(max_examples=80, deadline=None)
@given(gaps, st.integers(1, 3))
@example([0.0005, 0.0, 0.0, 0.0, 0.0], 2)
def test_requests_that_are_alike_are_served_as_any_others(gaps, in_flight):
    """The short way for the default policy and the engine's line give the same."""
    times = np.cumsum(gaps)
    short = replay(STREAM, VANILLA, times, config("immediate", in_flight, refuse=False))
    line = replay(STREAM, VANILLA, times, config("immediate", in_flight, refuse=True))
    for one, other in zip(short.batches, line.batches, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(short.answers.latency_ms, line.answers.latency_ms)


# What holds under every policy.


@settings(max_examples=150, deadline=None)
@given(st.data(), gaps, policies)
def test_everybody_is_answered_or_refused_once_and_in_order(data, gaps, settled):
    times = np.cumsum(gaps)
    batching = settled.engine.batching
    more, levels = drawn(data, len(times), batching.priority_levels)
    due = times + np.minimum(more, batching.due_after_s)
    try:
        made = replay(STREAM, VANILLA, times, settled, deadlines_s=due, priorities=levels)
    except ConfigError as error:
        assert "none of" in str(error)
        return
    told = np.concatenate([made.requests, made.refused.request])
    np.testing.assert_array_equal(np.sort(told), np.arange(len(times)))
    assert np.bincount(made.batch).tolist() == made.batches.size.tolist()
    assert (made.batches.size <= made.batches.shape).all()
    assert set(made.batches.shape.tolist()) <= {1, 2, 4}
    formed = made.batches.formed_s[made.batch]
    assert (formed >= times[made.requests]).all()
    assert (formed <= due[made.requests]).all(), "whoever is late takes no place"
    assert (made.refused.at_s >= times[made.refused.request]).all()
    level = np.asarray(levels)[made.requests]
    for one in range(1, batching.priority_levels + 1):
        inside = made.batch[level == one]
        if not batching.timed:
            assert (np.diff(inside) >= 0).all(), "first come, first served inside a level"
    for batch in range(len(made.batches.size)):
        taken = level[made.batch == batch].max()
        waits = (formed > made.batches.formed_s[batch]) & (
            times[made.requests] < made.batches.formed_s[batch]
        )
        assert not (waits & (level < taken)).any(), "nobody of a higher level was passed over"


@settings(max_examples=100, deadline=None)
@given(gaps, st.integers(1, 3))
def test_a_timeout_holds_nobody_longer_while_the_device_could_begin(gaps, in_flight):
    times = np.cumsum(gaps)
    made = replay(STREAM, VANILLA, times, config("timeout", in_flight))
    ended = np.concatenate([np.zeros(in_flight), made.batches.finished_s])
    place_s = ended[: len(made.batches.size)]  # a batch's place is that of one so many before it
    formed = made.batches.formed_s
    oldest = np.asarray([times[made.batch == b].min() for b in range(len(formed))])
    assert (formed <= np.maximum(place_s, oldest + TIMEOUT_S) + 1e-12).all()
    full = made.batches.size == 4
    waited = np.abs(formed - (oldest + TIMEOUT_S)) < 1e-12
    assert (full | waited | (formed == place_s)).all(), "full, or in time, or as soon as it could"


# The promise of slo.


@pytest.mark.parametrize("bursts", [False, True], ids=["poisson", "bursts"])
@pytest.mark.parametrize("load", [0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize(("in_flight", "slo_ms"), [(1, 25.0), (1, 80.0), (2, 45.0), (2, 200.0)])
def test_whom_slo_admits_it_answers_in_time(load, bursts, in_flight, slo_ms):
    """With an exact profile: nobody who was admitted is late, or rejected later."""
    times = overload(load, 1500, seed=int(10 * load), bursts=bursts)
    made = replay(STREAM, VANILLA, times, config("slo", in_flight, slo_ms=slo_ms))
    assert (made.answers.latency_ms <= slo_ms + EXACT * 1e3).all()
    assert set(made.refused.counts()) <= {"unreachable"}
    told_s = made.refused.at_s - times[made.refused.request]
    assert not told_s.any(), "rejected at once"


@settings(max_examples=100, deadline=None)
@given(st.data(), gaps, st.integers(1, 3), st.sampled_from([ExitPlan(), ExitPlan((0, 2), (0, 0))]))
def test_whoever_is_answered_is_answered_in_time(data, gaps, in_flight, plan):
    """Whatever the deadlines and levels; with one level nobody who was admitted is rejected."""
    times = np.cumsum(gaps)
    levels = data.draw(st.integers(1, 2))
    settled = config("slo", in_flight, slo_ms=60.0, priority_levels=levels)
    more, level = drawn(data, len(times), levels)
    due = times + np.minimum(more, 0.060)
    try:
        made = replay(STREAM, fixed(plan), times, settled, deadlines_s=due, priorities=level)
    except ConfigError:
        return
    assert (made.released_s <= due[made.requests] + EXACT).all()
    refused = set(made.refused.counts())
    assert refused <= ({"unreachable"} if levels == 1 else {"unreachable", "late", "passed"})


@pytest.mark.parametrize("bursts", [False, True], ids=["poisson", "bursts"])
def test_goodput_in_an_overload_is_close_to_capacity(bursts):
    """At three times the capacity; an objective of three full batches keeps batches full."""
    times = overload(3.0, 6000, seed=1, bursts=bursts)
    made = replay(STREAM, VANILLA, times, config("slo", slo_ms=80.0))
    full = saturate(STREAM, VANILLA, 400).throughput_rps
    assert full == pytest.approx(CAPACITY)
    assert len(made.requests) / times[-1] >= 0.97 * full


def test_spread_is_allowed_for():
    """Single runs of up to 1.3 times the median: counted with the slowest, nobody is late."""
    shapes = tuple(replace(shape, spread=(0.8, 1.0, 1.3)) for shape in STREAM.profile.shapes)
    stream = replace(STREAM, profile=replace(STREAM.profile, shapes=shapes))
    times = overload(1.5, 3000)
    worst = replay(stream, VANILLA, times, config("slo", slo_ms=100.0))
    assert (worst.answers.latency_ms <= 100.001).all()
    median = replay(stream, VANILLA, times, config("slo", slo_ms=100.0, slo_quantile=0.6))
    assert (median.answers.latency_ms > 100.001).any() or median.refused.counts().get("late")
    assert len(worst.requests) > 0.9 * len(median.requests)


# By hand.


def test_a_full_queue_refuses_as_a_server_does():
    made = replay(STREAM, VANILLA, np.zeros(9), config(queue_size=6))
    np.testing.assert_array_equal(made.requests, range(6))
    assert made.refused.counts() == {"queue full": 3}
    assert [REASONS[reason] for reason in made.refused.reason] == ["queue full"] * 3
    with pytest.raises(QueueFullError, match="more than 6 requests wait"):
        replay(STREAM, VANILLA, np.zeros(9), config("timeout", queue_size=6, refuse=False))


def test_a_request_whose_deadline_passes_in_the_queue_is_told_when_its_turn_comes():
    due = np.array([1.0, 1.0, 0.005, 1.0])
    alone = config(in_flight=1)
    made = replay(STREAM, VANILLA, np.array([0, 0.001, 0.001, 0.001]), alone, deadlines_s=due)
    assert made.refused.request.tolist() == [2] and made.refused.counts() == {"passed": 1}
    assert made.refused.at_s.tolist() == [0.010]
    np.testing.assert_allclose(made.answers.latency_ms, [10, 25, 25])


def test_rows_stay_with_their_requests():
    """What the ramps say to a refused request is nobody's answer."""
    answers = np.array([0.9, 0.0, 0.9, 0.0], np.float32)
    stream = replace(tiny.recording(4), errors=np.repeat(answers[:, None], 3, axis=1))
    times, due = np.array([0.0, 0.001, 1.0, 2.0]), np.array([9.0, 0.005, 9.0, 9.0])
    both = fixed(ExitPlan((0, 2), (0.1, 0.1)))
    made = replay(stream, both, times, config(in_flight=1), deadlines_s=due)
    assert made.requests.tolist() == [0, 2, 3] and made.refused.request.tolist() == [1]
    assert made.answers.exits.tolist() == [3, 3, 0]


def test_an_objective_that_nobody_can_meet_is_said():
    with pytest.raises(ConfigError, match="none of 3 requests could be answered in time"):
        replay(STREAM, VANILLA, np.zeros(3), config("slo", slo_ms=9.0))


def test_throughput_is_that_of_a_queue_that_is_never_empty_under_every_policy():
    for settled in (config(), config("timeout"), config("slo", slo_ms=25.0)):
        assert saturate(STREAM, VANILLA, 400, settled).throughput_rps == pytest.approx(CAPACITY)
