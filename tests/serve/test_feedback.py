"""Feedback: records in order on a thread of its own, plans taken up, failures that close exits."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.control.interface import Controller, Info
from apparate_jax.core import BatchRecord, ExitPlan
from apparate_jax.serve.engine import Engine
from apparate_jax.serve.feedback import Feedback
from apparate_jax.serve.state_store import StateStore
from tests.serve import models

SITES = (0, 1)
CLOSED, OPEN = ExitPlan.closed(SITES), ExitPlan(SITES, (0.5, 0.25))


@pytest.fixture(scope="module")
def programs():
    made = models.programs(models.mlp(), (1,))
    made.warm_atomic()
    return made


def record(number=0, sites=SITES):
    """A batch of one input; its number stands in its shape."""
    return BatchRecord(
        sites=sites,
        shape=number,
        arrived_s=np.zeros(1),
        dispatched_s=0.0,
        released_s=np.ones(1),
        finished_s=1.0,
        exits=np.full(1, len(sites), np.int32),
        errors=np.full((1, len(sites)), number / 100, np.float32),
        predictions=np.zeros((1, len(sites)), np.int32),
        final_predictions=np.zeros(1, np.int32),
    )


def deciding(plans):
    """A controller whose state is how many observations it has seen; gives the plans in turn."""

    def update(state, observation):
        return plans[min(state, len(plans) - 1)], state + 1, Info(events=(str(state),))

    return Controller(init=lambda: 0, update=update, plan=lambda _: plans[0])


def test_plans_are_taken_up_and_told_in_order(programs):
    told = []
    thread = []

    def on_decision(plan, info):
        told.append((plan, info.events))
        thread.append(threading.current_thread())

    feedback = Feedback(deciding([CLOSED, OPEN, OPEN, CLOSED]), on_decision)
    engine = Engine(programs, plan=CLOSED)
    feedback.attach(engine)
    for number in range(4):
        feedback.observe(record(number))
    feedback.close()
    assert told == [(plan, (str(i),)) for i, plan in enumerate([CLOSED, OPEN, OPEN, CLOSED])]
    assert engine.plan == CLOSED
    assert threading.current_thread() not in thread and not thread[0].is_alive()


def test_what_was_observed_before_is_decided_on_in_order(programs):
    seen = []

    def update(state, observation):
        seen.append(round(float(observation.errors[0, 0]) * 100))
        return CLOSED, state, Info()

    feedback = Feedback(Controller(init=lambda: None, update=update, plan=lambda _: CLOSED))
    for number in range(20):
        feedback.observe(record(number))
    assert seen == [], "nothing is decided before it is attached"
    feedback.attach(Engine(programs, plan=CLOSED))
    feedback.close()
    assert seen == list(range(20)), "close finishes what was observed"


def test_the_first_plan_and_every_cap_are_taken_up_but_only_decisions_told(programs):
    plans = [replace(OPEN, exit_cap=cap) for cap in range(4)]

    def update(state, observation):
        return plans[state], state + 1, Info()

    told = []
    controller = Controller(init=lambda: 1, update=update, plan=lambda _: plans[0])
    feedback = Feedback(controller, lambda plan, info: told.append(plan))
    engine = Engine(programs, plan=CLOSED)
    feedback.attach(engine)
    for _ in range(3):
        feedback.observe(record())
    feedback.close()
    assert engine.plan == plans[3]
    assert told == [], "nothing was decided: the cap moves with every batch"


def test_another_set_of_ramps_is_told(programs):
    other = ExitPlan.closed((1,))

    def update(state, observation):
        return other, state, Info()

    told = []
    controller = Controller(init=lambda: None, update=update, plan=lambda _: CLOSED)
    feedback = Feedback(controller, lambda plan, info: told.append(plan))
    engine = Engine(programs, plan=CLOSED)
    feedback.attach(engine)
    feedback.observe(record())
    feedback.observe(record(sites=()))
    feedback.close()
    assert engine.plan == other and told == [other]


def test_observing_never_waits(programs):
    begun, go_on = threading.Event(), threading.Event()

    def update(state, observation):
        begun.set()
        assert go_on.wait(30)
        return OPEN, state, Info()

    feedback = Feedback(Controller(init=lambda: None, update=update, plan=lambda _: CLOSED))
    engine = Engine(programs, plan=CLOSED)
    feedback.attach(engine)
    feedback.observe(record())
    assert begun.wait(30)
    for number in range(1000):
        feedback.observe(record(number))  # returns while the controller is at work
    assert engine.plan == CLOSED
    go_on.set()
    feedback.close()
    assert engine.plan == OPEN


@pytest.mark.parametrize("fails_in", ["update", "on_decision", "set_plan"])
def test_a_failure_closes_all_exits_and_is_logged(programs, caplog, fails_in):
    def fail(*_):
        raise ValueError(f"{fails_in} is out of order")

    plans = [ExitPlan((0, 5), (0.1, 0.1))] if fails_in == "set_plan" else [CLOSED, OPEN]
    controller = deciding([ExitPlan(SITES, (0.9, 0.9)), *plans])
    if fails_in == "update":
        controller = controller._replace(update=fail)
    feedback = Feedback(controller, fail if fails_in == "on_decision" else None)
    engine = Engine(programs, plan=ExitPlan(SITES, (0.7, 0.7)))
    feedback.attach(engine)
    for number in range(3):
        feedback.observe(record(number))
    feedback.close()
    assert engine.plan == CLOSED
    assert "no answer exits early any more" in caplog.text
    assert "ValueError" in caplog.text or "ConfigError" in caplog.text


def test_closing_without_an_engine_is_no_error():
    feedback = Feedback(deciding([CLOSED]))
    feedback.observe(record())
    feedback.close()


def test_records_of_a_real_engine(programs):
    """As a service wires them: the engine's observer is the feedback."""
    feedback = Feedback(deciding([CLOSED] * 3 + [OPEN]))
    with Engine(programs, plan=CLOSED, observer=feedback.observe) as engine:
        feedback.attach(engine)
        for number in range(4):
            engine.submit(models.example(number)).result(30)
        assert engine.wait_idle(30)
        feedback.close()
        assert engine.plan == OPEN


def test_a_state_that_was_kept_is_taken_up_again(programs, tmp_path):
    plans = [CLOSED, OPEN, CLOSED, OPEN]
    controller = deciding(plans)._replace(
        plan=lambda state: plans[max(0, state - 1)], resume=lambda state: state + 2
    )

    def store():
        return StateStore(tmp_path / "deep" / "state.npz", "model", every_s=1000.0)

    first = Feedback(controller, store=store())
    first.attach(Engine(programs, plan=CLOSED))
    first.observe(record())
    first.observe(record())
    first.close()
    later = Feedback(controller, store=store())
    assert later.plan == OPEN, "two were seen, and two more were added by resume"
