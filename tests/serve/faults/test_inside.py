"""Faults inside the server: whatever breaks, everybody hears of it, and no count is wrong."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from apparate_jax.control.interface import Controller, Info
from apparate_jax.core import FINAL, ExitPlan
from apparate_jax.errors import EngineClosedError
from apparate_jax.graph import trace
from apparate_jax.serve.engine import Engine, EngineConfig
from apparate_jax.serve.feedback import Feedback
from apparate_jax.serve.programs import Programs
from tests.serve import models

ALWAYS = ExitPlan((0, 1), (1.0, 0.0))
SHADOWS = ExitPlan((0,), (1.0,), shadow_every=1)


class Ended(BaseException):
    """What ends a thread, as SystemExit would."""


@pytest.fixture(scope="module")
def warmed():
    made = models.programs(models.mlp())
    made.warm_atomic()
    made.warm_merged(())
    made.warm_merged((0, 1))
    return made


def check_rows(warmed, answered, seeds):
    """Every answer is that of its own input, at whichever exit."""
    for answer, seed in zip(answered, seeds, strict=True):
        early, final = models.answers(warmed, models.example(seed)["x"])
        expected = final if answer.exit == FINAL else early[0]
        np.testing.assert_allclose(answer.scores, expected, rtol=1e-4, atol=1e-4)


def dies_with(engine, futures):
    """Nothing hangs: who waits gets an error, and so does whoever comes."""
    for future in futures:
        with pytest.raises(EngineClosedError, match="the engine"):
            future.result(10)
    for thread in engine._threads:
        thread.join(10)
        assert not thread.is_alive()
    assert not engine.ready and engine.waiting == 0 and engine.wait_idle(1)
    with pytest.raises(EngineClosedError, match="the engine stopped"):
        engine.submit(models.example())


def test_a_dispatcher_that_dies_in_a_batch(warmed):
    """The batch before is answered, the one under way and what waits get an error."""
    count = 0

    def policy(plan, load):
        nonlocal count
        count += 1
        if count > 1:
            raise Ended
        return plan.sites

    engine = Engine(warmed, EngineConfig(max_in_flight=2), plan=ALWAYS, load_policy=policy)
    futures = [engine.submit(models.example(seed)) for seed in range(12)]
    engine.start()
    check_rows(warmed, [future.result(10) for future in futures[:4]], range(4))
    dies_with(engine, futures[4:])
    engine.close(timeout_s=5)


def test_a_load_policy_that_raises_costs_one_batch(warmed, caplog):
    fails = threading.Event()
    fails.set()

    def policy(plan, load):
        if fails.is_set():
            raise ZeroDivisionError("no load")
        return plan.sites

    engine = Engine(warmed, EngineConfig(max_in_flight=1), plan=ALWAYS, load_policy=policy)
    with engine:
        for _ in range(3):  # more often than there are places on the device
            with pytest.raises(ZeroDivisionError):
                engine.submit(models.example()).result(10)
        fails.clear()
        check_rows(warmed, [engine.submit(models.example(3)).result(10)], [3])
        assert engine.ready and engine.wait_idle(10)
    assert "no load" in caplog.text


@pytest.mark.parametrize("where", ["dispatch", "release"])
def test_a_thread_that_dies_with_a_batch_on_the_device(warmed, monkeypatch, where):
    engine = Engine(warmed, EngineConfig(max_in_flight=2), plan=ALWAYS)

    def die(*batch):
        raise Ended

    if where == "dispatch":
        monkeypatch.setattr(engine, "_dispatch", die)
    else:
        monkeypatch.setattr(engine._release, "ramps", die)
    futures = [engine.submit(models.example(seed)) for seed in range(20)]
    dies_with(engine.start(), futures)
    engine.close(timeout_s=5)


def test_a_ramp_of_nan_never_answers(warmed):
    """Its error is no number, which is below no threshold; the guard hears of no exit."""
    model, records = models.mlp(), []
    program = trace(model.apply, model.params, *model.example_inputs(2))
    broken, whole = models.ramps(program)
    broken = replace(broken, params={**broken.params, "bias": np.full(models.CLASSES, np.nan)})
    made = Programs(program, model, [broken, whole], (1, 2, 4))
    made.warm_atomic()
    with Engine(made, plan=ALWAYS, observer=records.append) as engine:
        answered = [engine.submit(models.example(seed)) for seed in range(8)]
        answered = [future.result(10) for future in answered]
        assert engine.wait_idle(10)
    assert {answer.exit for answer in answered} == {FINAL}
    check_rows(warmed, answered, range(8))
    assert all((record.exits == 2).all() and record.lost == 0 for record in records)
    assert sum(len(record.exits) for record in records) == 8


def test_an_original_of_nan_counts_early_answers_as_lost(warmed):
    """An input whose first answer is fine and whose original has none."""
    made, records = models.programs(models.mlp(lambda x: x / 0.0 * 0.0)), []
    made.warm_atomic()
    with Engine(made, plan=ALWAYS, observer=records.append) as engine:
        early = engine.submit(models.example(1)).result(10)
        exact = engine.submit(models.example(2), exact=True)
        with pytest.raises(Exception, match="not finite"):
            exact.result(10)
        assert engine.wait_idle(10)
    check_rows(warmed, [early], [1])
    assert sum(record.lost for record in records) == 1
    assert sum(len(record.exits) for record in records) == 0


def test_an_observer_that_raises_is_told_of_a_batch_once(warmed, caplog):
    """Told again it would count early answers as lost that the original has checked."""
    records = []

    def observe(record):
        records.append(record)
        raise RuntimeError("no place to write")

    with Engine(warmed, plan=ALWAYS, observer=observe) as engine:
        check_rows(warmed, [engine.submit(models.example(5)).result(10)], [5])
        assert engine.wait_idle(10) and engine.ready
    assert [(len(record.exits), record.lost) for record in records] == [(1, 0)]
    assert "no place to write" in caplog.text


def test_a_shadow_head_that_raises_loses_nothing_that_was_checked(warmed, monkeypatch):
    records, original = [], warmed.shadow_route

    def failing(sites, batch):
        route = original(sites, batch)
        (site, head), *others = route.later
        return replace(route, later=((site, models.broken(head)), *others))

    monkeypatch.setattr(warmed, "shadow_route", failing)
    with Engine(warmed, plan=SHADOWS, observer=records.append) as engine:
        answer = engine.submit(models.example(6)).result(10)
        assert engine.wait_idle(10)
    check_rows(warmed, [answer], [6])
    assert [(len(r.exits), r.lost, r.shadow) for r in records] == [(1, 0, None)]


@pytest.mark.parametrize("error", [ValueError("control"), Ended()])
def test_a_controller_that_dies_closes_exits_and_keeps_no_records(warmed, error):
    def update(state, observation):
        raise error

    controller = Controller(lambda: 0, update, lambda state: ALWAYS, lambda state: state)
    feedback = Feedback(controller)
    with Engine(warmed, plan=ALWAYS, observer=feedback.observe) as engine:
        feedback.attach(engine)
        engine.submit(models.example()).result(10)
        feedback._thread.join(10)
        seeds = range(20)
        answered = [engine.submit(models.example(seed)).result(10) for seed in seeds]
        assert engine.wait_idle(10)
    assert {answer.exit for answer in answered} == {FINAL}
    check_rows(warmed, answered, seeds)
    assert feedback._records.empty(), "records that nobody takes would pile up"
    feedback.close()


def test_a_clock_that_jumps_moves_no_answer(warmed):
    """Hours ahead and back: deadlines pass or wait, answers stay right and nothing hangs."""
    now = SimpleNamespace(s=1e6)
    with Engine(warmed, plan=ALWAYS, clock=lambda: now.s) as engine:
        for jump in (0.0, 1e5, -3e5, 1e9):
            now.s += jump
            seeds = range(8)
            answered = [engine.submit(models.example(s), deadline_s=now.s + 60) for s in seeds]
            check_rows(warmed, [future.result(10) for future in answered], seeds)
        assert engine.wait_idle(10) and engine.ready


def test_the_time_of_day_is_not_looked_at(warmed, monkeypatch):
    def set_back():
        raise AssertionError("the time of day may jump: the engine must not read it")

    monkeypatch.setattr("time.time", set_back)
    feedback = Feedback(
        Controller(lambda: 0, lambda s, o: (ALWAYS, s, Info()), lambda s: ALWAYS, lambda s: s)
    )
    with Engine(warmed, plan=ALWAYS, observer=feedback.observe) as engine:
        feedback.attach(engine)
        check_rows(warmed, [engine.submit(models.example(4)).result(10)], [4])
        assert engine.wait_idle(10)
    feedback.close()
