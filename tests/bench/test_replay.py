"""Replay: queues worked out by hand and by formula, and what must hold whatever the stream."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.bench.replay import Pace, ReplayConfig, replay, saturate
from apparate_jax.bench.workload import arrivals
from apparate_jax.control import load as rules
from apparate_jax.control.interface import Controller, Info, fixed
from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError, QueueFullError
from apparate_jax.serve.batching import batch_shape
from apparate_jax.serve.choice import Left, hold_of, next_left
from apparate_jax.serve.engine import EngineConfig
from tests.bench import tiny

VANILLA = fixed(ExitPlan())
BOTH = ExitPlan((0, 2), (0.1, 0.1))
ONE = ReplayConfig(EngineConfig(max_in_flight=1))
AT_ONCE = ReplayConfig(EngineConfig(defer=0), rules.always)


def ms(*times):
    return np.asarray(times, np.float64) / 1e3


def errors(*rows):
    """A recording whose rows have these errors at the three sites."""
    made = tiny.recording(len(rows))
    return replace(made, errors=np.asarray(rows, np.float32))


def script(*plans, **seen):
    """A policy that goes to the next plan with each batch, and keeps what it was shown."""
    shown = seen.setdefault("shown", [])

    def update(state, observation):
        shown.append(observation)
        state = min(state + 1, len(plans) - 1)
        return plans[state], state, Info(events=(f"plan {state}",))

    return Controller(lambda: 0, update, lambda state: plans[state])


# By hand: the profile of tests/bench/tiny.py, where one input takes 10 ms and two take 16.


def test_two_batches_in_flight_by_hand():
    """The second batch is formed at 4 ms, while the first runs: the third input misses it."""
    made = replay(tiny.recording(), VANILLA, ms(0, 4, 5, 30))
    np.testing.assert_allclose(made.answers.latency_ms, [10, 16, 25, 10])
    np.testing.assert_allclose(made.batches.formed_s, ms(0, 4, 10, 30))
    np.testing.assert_allclose(made.batches.started_s, ms(0, 10, 20, 30))
    np.testing.assert_allclose(made.batches.finished_s, ms(10, 20, 30, 40))
    np.testing.assert_array_equal(made.answers.shape, 1)


def test_one_batch_in_flight_by_hand():
    """What waits behind the first one goes together: 16 ms for two."""
    made = replay(tiny.recording(), VANILLA, ms(0, 4, 5, 30), ONE)
    np.testing.assert_allclose(made.answers.latency_ms, [10, 22, 21, 10])
    np.testing.assert_array_equal(made.batches.size, [1, 2, 1])


def test_a_batch_is_padded_to_its_shape_and_no_larger_than_the_largest():
    made = replay(tiny.recording(), VANILLA, ms(*[0] * 8), ONE)
    np.testing.assert_array_equal(made.batches.size, [4, 4])
    made = replay(tiny.recording(), VANILLA, ms(0, 1, 1, 1), ONE)
    np.testing.assert_array_equal(made.batches.size, [1, 3])
    np.testing.assert_array_equal(made.batches.shape, [1, 4])
    np.testing.assert_allclose(made.answers.latency_ms, [10, 29, 29, 29])


def test_answers_leave_as_their_ramp_completes_by_hand():
    stream = errors([0.05, 0.9, 0.9], [0.2, 0.9, 0.09], [0.2, 0.0, 0.2], [0.1, 0.1, 0.1])
    made = replay(stream, fixed(BOTH), ms(0, 100, 200, 300))
    np.testing.assert_allclose(made.answers.latency_ms, [3, 8, 11, 11])
    np.testing.assert_array_equal(made.answers.exits, [0, 2, 3, 3])
    np.testing.assert_allclose(made.batches.finished_s, ms(11, 111, 211, 311))


def test_right_is_what_the_ramp_said():
    stream = replace(
        errors(*[[0.0, 0.9, 0.9]] * 2, [0.9] * 3),
        final_predictions=np.array([1, 1, 1], np.int32),
        predictions=np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], np.int32),
    )
    made = replay(stream, fixed(BOTH), ms(0, 100, 200))
    np.testing.assert_array_equal(made.answers.right, [True, False, True])


def test_ramps_stay_out_of_a_saturated_queue():
    stream = errors(*[[0.0, 0.0, 0.0]] * 12)
    made = replay(stream, fixed(BOTH), np.zeros(12), ONE)
    np.testing.assert_array_equal(made.answers.exits, [3] * 4 + [0] * 8)
    np.testing.assert_allclose(made.answers.latency_ms, [20] * 4 + [26] * 4 + [44] * 4)


# The plan in force.


def test_a_decision_is_in_force_for_the_next_batch_on_the_device():
    """Formed before the first batch ended, the second still gets its new thresholds."""
    stream = errors(*[[0.5, 0.5, 0.5]] * 2)
    opened = ExitPlan((0, 2), (0.9, 0.9))
    made = replay(stream, script(ExitPlan.closed((0, 2)), opened), ms(0, 1))
    np.testing.assert_allclose(made.answers.latency_ms, [11, 13])
    assert made.plans == ((0.011, opened),) and made.plan == opened
    assert [what for _, what in made.events] == ["plan 1", "plan 1"]


def test_control_takes_its_time():
    stream = errors(*[[0.5, 0.5, 0.5]] * 2)
    plans = ExitPlan.closed((0, 2)), ExitPlan((0, 2), (0.9, 0.9))
    delayed = ReplayConfig(control_delay_ms=5.0)
    # decided at 11 ms, in force at 16: after the first ramp (14) and before the second (19)
    made = replay(stream, script(*plans), ms(0, 1), delayed)
    np.testing.assert_array_equal(made.answers.exits, [3, 2])
    assert made.plans[0].at_s == pytest.approx(0.016)


def test_a_batch_of_an_older_set_does_not_exit():
    stream = errors(*[[0.0, 0.0, 0.0]] * 3)
    plans = ExitPlan((0, 2), (0.5, 0.5)), ExitPlan((1,), (0.5,))
    made = replay(stream, script(*plans), ms(0, 1, 2), AT_ONCE)
    # the second batch was formed with the old set and released under the new one
    np.testing.assert_array_equal(made.answers.exits, [0, 3, 1])


def test_the_cap_counts_all_early_answers_in_order_of_release():
    stream = errors([0.5, 0.5, 0.05], [0.05, 0.5, 0.05], [0.05, 0.5, 0.05], [0.5, 0.5, 0.05])
    made = replay(stream, fixed(replace(BOTH, exit_cap=3)), np.zeros(4), ONE)
    # two leave at the first ramp, then one of two at the second
    np.testing.assert_array_equal(made.answers.exits, [2, 0, 0, 3])


def test_the_controller_sees_every_batch_as_it_was():
    shown = []
    stream = errors([0.05, 0.5, 0.05], [0.5, 0.5, 0.05], [0.5, 0.5, 0.5])
    replay(stream, script(BOTH, shown=shown), ms(0, 1, 1), ONE)
    second, first = sorted(shown, key=lambda seen: -seen.shape)
    assert (first.sites, first.shape, second.shape) == ((0, 2), 1, 2)
    np.testing.assert_array_equal(first.exits, [0])
    np.testing.assert_array_equal(second.exits, [1, 2])
    np.testing.assert_array_equal(second.errors, stream.errors[1:][:, [0, 2]])
    np.testing.assert_array_equal(second.agrees, stream.agrees[1:][:, [0, 2]])
    assert second.exits.dtype == np.int32 and second.errors.dtype == np.float32


# Formulas.


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_mean_wait_of_m_d_1(load):
    """One server, one at a time, always 10 ms: Pollaczek and Khinchine."""
    alone = replace(tiny.STREAM, shapes=tiny.STREAM.shapes[:1])
    times = arrivals("poisson", load * 100, 200_000, seed=3)
    made = replay(replace(tiny.recording(), profile=alone), VANILLA, times)
    expected = 10.0 * (1 + load / (2 * (1 - load)))
    assert made.answers.latency_ms.mean() == pytest.approx(expected, rel=0.02)


def test_throughput_at_saturation_is_the_largest_batch_over_its_time():
    assert saturate(tiny.recording(), VANILLA, 400).throughput_rps == pytest.approx(4 / 0.020)
    full = saturate(tiny.recording(), fixed(BOTH), 400, ReplayConfig(load_policy=rules.always))
    assert full.throughput_rps == pytest.approx(4 / 0.024)
    spared = saturate(tiny.recording(), fixed(BOTH), 400).throughput_rps
    assert spared == pytest.approx(4 / 0.020, rel=0.01)
    with pytest.raises(ConfigError, match="too few for a throughput"):
        _ = saturate(tiny.recording(), VANILLA, 3).throughput_rps


# What the profile says of single runs and of the engine.


def spread(*factors):
    shapes = tuple(replace(shape, spread=factors) for shape in tiny.STREAM.shapes)
    return replace(tiny.STREAM, shapes=shapes)


def test_a_device_that_rested_is_slower():
    rested = replace(tiny.STREAM, rest_ms=(0.0, 40.0), rest_factors=(1.0, 2.0))
    stream = replace(tiny.recording(), profile=rested)
    alone_ms = LatencyModel(tiny.STREAM).vanilla_ms(1)
    made = replay(stream, fixed(ExitPlan()), ms(0, 2 * alone_ms + 20, 1000))
    # the first follows a rest without end, the second one of 20 ms, the third a long one
    assert made.answers.latency_ms == pytest.approx([2 * alone_ms, 1.5 * alone_ms, 2 * alone_ms])


def test_handling_delays_an_idle_device_and_hides_behind_a_busy_one():
    stream = replace(tiny.recording(), profile=replace(tiny.STREAM, handling_ms=1.0))
    made = replay(stream, VANILLA, ms(0, 4, 30))
    np.testing.assert_allclose(made.batches.started_s, ms(1, 11, 31))
    np.testing.assert_allclose(made.answers.latency_ms, [11, 17, 11])


def test_single_runs_spread_as_measured():
    stream = replace(errors([0.05, 0.9, 0.9], [0.9, 0.9, 0.9]), profile=spread(0.5, 1.0, 3.0))
    made = replay(stream, fixed(BOTH), np.arange(900.0))
    factors = made.answers.latency_ms / np.resize([3.0, 11.0], 900)
    values, counts = np.unique(factors.round(6), return_counts=True)
    np.testing.assert_allclose(values, [0.5, 1.0, 3.0])
    assert counts.min() > 230, "each as likely as the others"
    other = replay(stream, fixed(BOTH), np.arange(900.0), ReplayConfig(seed=1))
    assert (other.answers.latency_ms != made.answers.latency_ms).any()


def test_a_slow_run_holds_up_the_next():
    stream = replace(tiny.recording(), profile=spread(2.0))
    np.testing.assert_allclose(replay(stream, VANILLA, ms(0, 5)).answers.latency_ms, [20, 35])


def test_a_device_that_slows_down():
    paced = ReplayConfig(pace=Pace((0.0, 0.1, 0.2), (1.0, 2.0, 0.5)))
    made = replay(tiny.recording(), VANILLA, ms(0, 90, 100, 150, 250), paced)
    # the third starts at 100 and is slow; so is the fourth, which waits for nobody
    np.testing.assert_allclose(made.answers.latency_ms, [10, 10, 20, 20, 5])
    for bad in (((), ()), ((0.0,), (0.0,)), ((0.0,), (1.0, 2.0))):
        with pytest.raises(ConfigError, match="a pace of"):
            Pace(*bad)


# What must hold, whatever the stream.


def reference(stream, plan, times, config):
    """The engine with a plan that never changes, request by request and as plainly as can be."""
    latency, sizes = LatencyModel(stream.profile), LatencyModel(stream.profile).batches
    waiting, ends, out, cap = list(range(len(times))), [], {}, plan.exit_cap
    since = left = begun = 0
    free, busy, capacity = 0.0, rules.Busy(), rules.capacity_of(latency)
    rests = []  # of deferred ones: begun before, at once, in pieces, whether a piece was run, exits
    seen = Left()
    opens = any(threshold > 0 for threshold in plan.thresholds)
    while waiting:
        slot = ends[-config.engine.max_in_flight] if len(ends) >= config.engine.max_in_flight else 0
        while rests and max(slot, free) < times[waiting[0]]:
            rests[0][3] = True
            slot = free = max(slot, free) + rests[0][2].pop(0)
            if not rests[0][2]:
                seen = next_left(seen, *rests.pop(0)[4])
        at = max(slot, times[waiting[0]])
        there = [i for i in waiting if times[i] <= at]
        take, shape = batch_shape(len(there), sizes)
        batch, waiting = waiting[:take], waiting[take:]
        behind = len(there) - take
        busy = rules.next_busy(busy, take, sizes[-1], at, capacity)
        load = rules.Load(take, behind, sizes[-1], rules.utilisation(busy, capacity))
        sites = config.load_policy(plan, load)
        since += 1
        begun += 1
        start = max(at, free)
        room = np.inf if cap is None else cap - left
        opens_here = config.engine.defer and opens and rules.keeps_up(busy, capacity)
        hold = hold_of(stream.depths, sites, take, seen) if opens_here else 0
        while rests and (room < len(batch) or begun - rests[0][0] > config.engine.defer):
            _, whole, pieces, partly, exits = rests.pop(0)
            room += len(exits[1])
            start += sum(pieces) if partly else whole
            seen = next_left(seen, *exits)
        after = np.maximum.accumulate(latency.answers_ms(sites, shape)) / 1e3
        for position, site in enumerate(sites if sites == plan.sites else ()):
            for i in batch:
                error = stream.errors[i % len(stream), stream.ramps.index(site)]
                below = error < np.float32(plan.thresholds[position])
                if i not in out and below and (cap is None or left < cap):
                    out[i] = (start + after[position], site)
                    left += 1
        end = start + after[-1]
        for i in batch:
            out.setdefault(i, (end, len(stream.site_names)))
        rarer = 1.0 - min(load.utilisation, 0.95) if plan.shadow_every > 2 else 1.0
        interval = round(plan.shadow_every / rarer) * (1 if behind == 0 else 4)
        if plan.shadow_every and since >= interval and behind < sizes[-1]:
            since, more = 0, latency.shadow_ms(sites, shape) / 1e3
            end += more
        else:
            more = None
        free = end
        exits = np.array([(*sites, len(stream.site_names)).index(out[i][1]) for i in batch])
        if exits.max() < hold:
            free = start + after[hold - 1]
            stages = [stage / 1e3 for stage in latency.pieces_ms(sites, shape, hold)]
            stages += [] if more is None else [more]
            at_once = -(-len(stages) // 4)
            pieces = [sum(stages[k : k + at_once]) for k in range(0, len(stages), at_once)]
            rests.append([begun, end - free, pieces, False, (sites, exits)])
        else:
            seen = next_left(seen, sites, exits)
        ends.append(free)
    released, sites = zip(*(out[i] for i in range(len(times))), strict=True)
    return np.asarray(released), np.asarray(sites)


shares = st.floats(0, 1)
plans = st.builds(
    lambda sites, thresholds, cap, every: ExitPlan(
        tuple(sorted(sites)), tuple(thresholds[: len(sites)]), cap, every
    ),
    st.sets(st.integers(0, 2)),
    st.lists(shares, min_size=3, max_size=3),
    st.none() | st.integers(0, 60),
    st.integers(0, 5),
)
gaps = st.lists(st.sampled_from([0.0, 0.0005, 0.003, 0.007, 0.0111, 0.03]), min_size=1, max_size=90)
configs = st.builds(
    lambda count, defer, policy: ReplayConfig(EngineConfig(count, defer=defer), policy),
    st.integers(1, 3),
    st.sampled_from([0, 1, 8]),
    st.sampled_from([rules.always, rules.by_worth]),
)


@settings(max_examples=150, deadline=None)
@given(plans, gaps, configs, st.integers(0, 3))
def test_it_is_the_plain_engine(plan, gaps, config, seed):
    times, stream = np.cumsum(gaps), tiny.recording(seed=seed)
    made = replay(stream, fixed(plan), times, config)
    released, sites = reference(stream, plan, times, config)
    np.testing.assert_allclose(made.released_s, released, atol=1e-9)
    np.testing.assert_array_equal(made.answers.exits, sites)


@settings(max_examples=60, deadline=None)
@given(st.lists(plans, min_size=1, max_size=6), gaps, configs, st.floats(0, 40), st.integers(0, 50))
def test_what_must_hold_under_any_policy(choices, gaps, config, delay_ms, first_row):
    times, stream = np.cumsum(gaps), tiny.recording()
    choices = [replace(plan, exit_cap=None) for plan in choices]
    config = replace(config, control_delay_ms=delay_ms, first_row=first_row)
    shown = []
    made = replay(stream, script(*choices, shown=shown), times, config)
    answers, batches = made.answers, made.batches
    assert len(answers.latency_ms) == batches.size.sum() == len(times)
    assert (answers.latency_ms > 0).all(), "nobody is answered before arriving"
    assert (batches.started_s >= batches.formed_s).all()
    if config.engine.defer == 0:
        assert (batches.started_s[1:] >= batches.finished_s[:-1]).all(), "one after another"
    assert (np.diff(batches.started_s) >= 0).all()
    later = np.arange(len(batches.size)) + config.engine.defer + 1
    last = np.append(batches.started_s, np.inf)[np.minimum(later, len(batches.size))]
    assert (batches.finished_s <= last + 1e-9).all(), "so many go before it, and no more"
    inside = np.repeat(batches.finished_s, batches.size) - made.released_s
    assert (inside > -1e-9).all(), "every batch runs to its end"
    assert (batches.size <= batches.shape).all() and set(batches.shape) <= {1, 2, 4}
    assert (answers.right | (answers.exits < 3)).all(), "the original is right"
    assert len(shown) == len(batches.size)
    again = replay(stream, script(*choices), times, config)
    for one, other in zip(answers, again.answers, strict=True):
        np.testing.assert_array_equal(one, other)
    assert made.plans == again.plans


@settings(max_examples=60, deadline=None)
@given(plans, gaps, configs, st.integers(0, 30))
def test_the_cap_is_never_exceeded_and_exits_go_with_thresholds(plan, gaps, config, cap):
    times, stream = np.cumsum(gaps), tiny.recording()
    capped = replay(stream, fixed(replace(plan, exit_cap=cap)), times, config).answers
    free = replay(stream, fixed(replace(plan, exit_cap=None)), times, config).answers
    early = (free.exits < 3).sum()
    assert (capped.exits < 3).sum() == min(cap, early)
    closed = replay(stream, fixed(ExitPlan.closed(plan.sites)), times, config).answers
    assert (closed.exits == 3).all() and closed.right.all()


def test_rows_are_used_in_a_circle():
    stream = errors([0.05, 0.9, 0.9], [0.9, 0.9, 0.9], [0.9, 0.9, 0.05])
    made = replay(stream, fixed(BOTH), np.arange(7.0), ReplayConfig(first_row=2))
    np.testing.assert_array_equal(made.answers.exits, [2, 0, 3, 2, 0, 3, 2])


def test_falling_behind_is_said():
    config = ReplayConfig(EngineConfig(queue_size=20))
    with pytest.raises(QueueFullError, match="more than 20 requests wait after"):
        replay(tiny.recording(), VANILLA, arrivals("fixed", 400.0, 500), config)
    replay(tiny.recording(), VANILLA, arrivals("fixed", 190.0, 500), config)


@pytest.mark.parametrize(
    ("times", "plan", "message"),
    [
        (ms(), ExitPlan(), "arrivals must be at least one time, ascending"),
        (ms(1, 0), ExitPlan(), "ascending"),
        (np.array([np.nan]).repeat(2), ExitPlan(), "ascending"),
        (ms(0), ExitPlan((3,), (0.5,)), r"the plan has sites \[3\], but ramps were recorded at"),
    ],
)
def test_what_cannot_be_replayed(times, plan, message):
    with pytest.raises(ConfigError, match=message):
        replay(tiny.recording(), fixed(plan), times)


@pytest.mark.parametrize("given", [{"control_delay_ms": -1.0}, {"first_row": -1}, {"seed": -1}])
def test_settings_out_of_range(given):
    with pytest.raises(ConfigError, match="expected at least 0"):
        ReplayConfig(**given)
