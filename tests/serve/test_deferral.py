"""Answered batches let others go before what is left of them, and still run to their end."""

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from apparate_jax.control.config import ControlConfig
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import OFTEN, QUIET, always
from apparate_jax.core import FINAL, BatchRecord, ExitPlan, Profile, ShapeProfile
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.answer import unpack_answer
from apparate_jax.serve.choice import REMEMBERED, Chooser, Left, hold_of, next_left
from apparate_jax.serve.deferral import Deferral
from apparate_jax.serve.engine import BatchingConfig, Engine, EngineConfig
from tests.serve import models

LEAVE = ExitPlan((0,), (1.0,))


def batch(size: int = 1, *, hold: int = 1) -> SimpleNamespace:
    return SimpleNamespace(requests=[None] * size, hold=hold, deferred=False, ended=False)


class Gate:
    """A model whose stage behind the first ramp waits while the gate is closed."""

    def __init__(self, batch_sizes=(1,)):
        self.event = threading.Event()
        self.event.set()
        self.programs = models.programs(models.deeper(self.event), batch_sizes)
        self.programs.warm_merged(())
        self.programs.warm_merged((0,))
        self.programs.warm_atomic()
        self.records: list[BatchRecord] = []

    def engine(self, defer=8, **more) -> Engine:
        config = EngineConfig(defer=defer)
        return Engine(self.programs, config, plan=LEAVE, observer=self.records.append, **more)


# The rule.


def test_none_is_begun_while_another_is_held():
    made, first, second = Deferral(8), batch(), batch(hold=0)
    made.begin(first)
    waits = threading.Thread(target=made.begin, args=(second,))
    waits.start()
    waits.join(0.05)
    assert waits.is_alive() and not made.has_time()
    made.go_on()
    waits.join(5)
    assert not waits.is_alive()


def test_there_is_time_once_nobody_waits_for_the_device():
    made, first, second = Deferral(8), batch(), batch()
    made.begin(first)
    made.defer(first)
    assert made.has_time() and made.oldest() is first and len(made) == 1
    made.begin(second)
    assert not made.has_time(), "the second is on the device"
    made.end(second)
    assert made.has_time()
    made.take(first)
    assert not made.has_time() and made.drain() == []


def test_a_deferred_batch_is_due_after_so_many_others():
    made, batches = Deferral(2), [batch() for _ in range(5)]
    due = []
    for one in batches:
        due.append(made.begin(one))
        made.defer(one)
    assert due == [[], [], [], [batches[0]], [batches[1]]]
    assert made.drain() == batches[2:]


def test_so_many_are_due_that_everybody_may_leave_once_they_are_checked():
    made, batches = Deferral(8), [batch(2) for _ in range(4)]
    for one in batches:
        made.begin(one)
        made.defer(one)
    last = batch(4)
    assert made.begin(last, room=1) == batches[:2]


def test_what_was_given_up_before_it_began_holds_up_nobody():
    made, first = Deferral(8), batch()
    made.end(first)
    made.begin(first)
    made.begin(batch(hold=0))
    assert not made.has_time()


# Behind which ramp.

DEPTHS = (0.2, 0.5, 0.9, 0.97)
SETS = (0, 1, 2)


def exits(*positions):
    return np.array(positions, np.int32)


def test_shares_of_those_who_left_are_those_of_all_inputs_at_first():
    left = next_left(Left(), SETS, exits(0, 1, 3, 3))
    left = next_left(left, SETS, exits(1, 1))
    assert left == Left(SETS, pytest.approx((1 / 6, 4 / 6, 4 / 6)), 6)


def test_what_was_long_ago_is_forgotten():
    left = next_left(Left(), SETS, exits(*[0] * REMEMBERED))
    assert left.shares == (1.0, 1.0, 1.0) and left.inputs == REMEMBERED
    left = next_left(left, SETS, exits(*[3] * (REMEMBERED // 4)))
    assert left.shares == pytest.approx((0.75, 0.75, 0.75)) and left.inputs == REMEMBERED
    left = next_left(left, SETS, exits(*[3] * 2 * REMEMBERED))
    assert left.shares == pytest.approx((0.0, 0.0, 0.0))


def test_other_ramps_begin_anew_and_none_say_nothing():
    left = Left(SETS, (0.1, 0.2, 0.3), 99)
    assert next_left(left, (), exits(0, 0)) == left
    assert next_left(left, SETS, exits()) == left
    assert next_left(left, (1,), exits(0, 1)) == Left((1,), (0.5,), 2)


def test_a_batch_is_held_where_that_frees_most():
    left = Left(SETS, (0.3, 0.7, 0.9), 256)
    # one input: 0.3 x 0.8 = 0.24, 0.7 x 0.5 = 0.35 and 0.9 x 0.1 = 0.09
    assert hold_of(DEPTHS, SETS, 1, left) == 2
    # five of them, all answered: 0.002, 0.084 and 0.059; nine: 0.00002, 0.020 and 0.039
    assert hold_of(DEPTHS, SETS, 5, left) == 2
    assert hold_of(DEPTHS, SETS, 9, left) == 3
    assert hold_of(DEPTHS, SETS, 1, left._replace(shares=(0.5, 0.7, 0.9))) == 1


def test_nothing_is_held_where_that_frees_too_little():
    assert hold_of(DEPTHS, SETS, 1, Left(SETS, (0.0, 0.01, 0.1), 256)) == 0
    assert hold_of(DEPTHS, SETS, 32, Left(SETS, (0.3, 0.7, 0.9), 256)) == 0
    assert hold_of(DEPTHS, (3,), 1, Left((3,), (1.0,), 256)) == 0  # little is left behind it
    assert hold_of(DEPTHS, (), 1, Left()) == 0


def test_before_anything_was_seen_a_batch_is_held_as_late_as_is_worth_it():
    assert hold_of(DEPTHS, (0, 1, 3), 4, Left()) == 2
    assert hold_of(DEPTHS, (0, 1), 4, Left(SETS, (0.9, 0.9, 0.9), 256)) == 2
    assert hold_of(DEPTHS, (3,), 4, Left()) == 0


def test_the_chooser_learns_where_inputs_leave():
    made = Chooser(EngineConfig(), always, 4, DEPTHS)
    plan = ExitPlan(SETS, (0.1, 0.1, 0.1))
    assert made.next(plan, 1, 0, 0.0).hold == 3
    made.saw(SETS, exits(0, 0, 0, 1))
    assert made.next(plan, 1, 0, 0.0).hold == 1
    assert made.next(plan, 1, 0, 0.0, exact=True).hold == 0
    assert made.next(ExitPlan(SETS, (0.0, 0.0, 0.0)), 1, 0, 0.0).hold == 0
    assert made.next(ExitPlan(), 1, 0, 0.0).hold == 0
    off = Chooser(EngineConfig(defer=0), always, 4, DEPTHS)
    assert off.next(plan, 1, 0, 0.0).hold == 0


@pytest.mark.parametrize(("two_ms", "eight_ms", "holds"), [(18.0, 20.0, False), (20.0, 80.0, True)])
def test_nothing_is_held_once_small_batches_cannot_be_kept_up_with(two_ms, eight_ms, holds):
    took_ms = {1: 10.0, 2: two_ms, 8: eight_ms}
    shapes = tuple(ShapeProfile(n, ms, ms, (), (), ()) for n, ms in took_ms.items())
    latency = LatencyModel(Profile("a device", "0.0", (), shapes))
    made, plan = Chooser(EngineConfig(), always, 8, DEPTHS, latency), ExitPlan(SETS, (0.1,) * 3)
    assert made.next(plan, 1, 0, 0.0).hold, "nobody came yet"
    busy = [made.next(plan, 8, 0, 0.06 * number).hold for number in range(400)]
    assert bool(busy[-1]) == holds
    assert made.next(plan, 1, 0, 3600.0).hold, "after a pause"


@pytest.mark.parametrize("disturbed", [(1, 1), (2, 0)])
def test_the_chooser_makes_more_shadow_batches_once_inputs_come_alone(disturbed):
    made = Chooser(EngineConfig(), always, 4, DEPTHS)
    plan = ExitPlan(SETS, (0.1,) * 3, shadow_every=2 * OFTEN)

    def shadows(batches):
        return sum(made.next(plan, 1, 0, 0.0).shadow for _ in range(batches))

    assert shadows(QUIET) == QUIET // (2 * OFTEN)
    assert shadows(20 * OFTEN) == 10 * OFTEN
    made.next(plan, *disturbed, 0.0)
    assert shadows(9 * OFTEN) == 4


# In the engine.


def test_those_who_wait_are_answered_before_the_rest_of_an_answered_batch_is_run():
    gate = Gate()
    gate.event.clear()
    engine = gate.engine()
    early = [engine.submit(models.example(seed)) for seed in range(4)]
    with engine:
        assert {future.result(30).exit for future in early} == {gate.programs.sites[0].name}
        assert not gate.records, "the last stage of none of them can have run"
        gate.event.set()
        assert engine.wait_idle(30)
    assert [len(record.exits) for record in gate.records] == [1] * 4


def test_nobody_is_deferred_whom_somebody_waits_for():
    gate = Gate()
    with gate.engine() as engine:
        answer = engine.submit(models.example(), exact=True).result(30)
        assert answer.exit == FINAL
        assert engine.wait_idle(30)


@pytest.mark.parametrize("defer", [0, 1, 8])
def test_every_input_runs_to_its_end(defer):
    gate = Gate((1, 2, 4))
    finals: list[Future] = [Future() for _ in range(40)]
    with gate.engine(defer) as engine:
        early = [engine.submit(models.example(i), final=final) for i, final in enumerate(finals)]
        assert {future.result(30).exit for future in early} == {gate.programs.sites[0].name}
        answers = [final.result(30) for final in finals]
    assert {answer.exit for answer in answers} == {FINAL}
    rows, model = np.stack([models.example(i)["x"] for i in range(40)]), gate.programs.model
    expected = np.asarray(model.apply(model.params, rows))
    np.testing.assert_allclose([a.scores for a in answers], expected, rtol=1e-5, atol=1e-6)
    assert sum(len(record.exits) for record in gate.records) == 40


def test_ramps_behind_the_hold_are_heard_too():
    gate = Gate()
    gate.programs.warm_merged((0, 1))
    plan = ExitPlan((0, 1), (1.0, 1.0))
    first = gate.programs.sites[0].name
    with Engine(gate.programs, EngineConfig(), plan=plan, observer=gate.records.append) as engine:
        for seed in range(6):
            assert engine.submit(models.example(seed)).result(30).exit == first
            assert engine.wait_idle(30)
    route = gate.programs.route((0, 1), 1)
    for seed, record in enumerate(gate.records):
        assert record.sites == (0, 1) and record.exits.tolist() == [0]
        rows = [models.example(seed)["x"][None]]
        *ramps, _ = map(np.asarray, route.dispatch(gate.programs.ramp_params, rows))
        errors = [float(unpack_answer(answer)[0][0]) for answer in ramps]
        np.testing.assert_allclose(record.errors[0], errors, rtol=1e-5, atol=1e-6)


def test_closing_runs_what_is_deferred_to_its_end():
    gate = Gate()
    with gate.engine() as engine:
        for seed in range(5):
            engine.submit(models.example(seed)).result(30)
    assert sum(len(record.exits) for record in gate.records) == 5
    assert engine.wait_idle(0.0)


def test_shadow_batches_are_deferred_too():
    gate = Gate()
    config = EngineConfig(defer=8)
    plan = ExitPlan((0,), (1.0,), shadow_every=1)
    with Engine(gate.programs, config, plan=plan, observer=gate.records.append) as engine:
        for seed in range(3):
            engine.submit(models.example(seed)).result(30)
        assert engine.wait_idle(30)
    assert [record.shadow.sites for record in gate.records] == [(0, 1, 2, 3)] * 3


def test_merged_and_atomic_stages_are_held_behind_the_same_value():
    made = Gate().programs
    route, atomic = made.route((0,), 1), made.atomic_route((0,), 1)
    inputs = made.example_inputs(1)
    course = route.start(made.ramp_params, inputs)
    assert len(list(course.answers(route.behind(1)))) == 1
    assert (course.queued, course.left) == (1, 1)
    course.go_on_by(atomic)
    assert course.left == course.rest(1) == 4
    (final,) = course.answers()
    *_, expected = route.dispatch(made.ramp_params, inputs)
    np.testing.assert_array_equal(final, expected)


def test_settings():
    with pytest.raises(ConfigError, match="defer is -1, expected 0 or a number of batches"):
        EngineConfig(defer=-1)
    timed = BatchingConfig("slo", slo_ms=100.0)
    assert EngineConfig(batching=timed).deferrals == 0
    assert EngineConfig().deferrals == EngineConfig().defer > 0


def test_control_reckons_with_others_only_where_batches_are_deferred():
    control = ControlConfig(others=2.0, unchecked_batches=4)
    assert EngineConfig().suited(control) is control
    timed = BatchingConfig("slo", slo_ms=100.0)
    for never in (EngineConfig(defer=0), EngineConfig(batching=timed)):
        assert never.suited(control) == ControlConfig(others=0.0, unchecked_batches=1)
