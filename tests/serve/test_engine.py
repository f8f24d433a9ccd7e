"""The engine: right answers, early release, feedback, errors that reach every waiting future."""

import threading
from concurrent.futures import Future
from dataclasses import replace

import jax
import numpy as np
import pytest

from apparate_jax.control.load import by_worth
from apparate_jax.core import FINAL, BatchRecord, ExitPlan
from apparate_jax.errors import (
    ConfigError,
    EngineClosedError,
    NumericsError,
    QueueFullError,
    RequestError,
)
from apparate_jax.serve.engine import Engine, EngineConfig
from apparate_jax.serve.programs import Programs
from tests.serve import models

NEVER, ALWAYS = ExitPlan.closed((0, 1)), ExitPlan((0, 1), (1.0, 0.0))


@pytest.fixture(scope="module")
def warmed() -> Programs:
    made = models.programs(models.mlp())
    made.warm_atomic()
    made.warm_merged(())
    return made


def _batch_size(record: BatchRecord) -> int:
    return len(record.exits)


@pytest.mark.parametrize("plan", [ExitPlan(), NEVER], ids=["vanilla", "closed"])
def test_answers_are_the_original_models(warmed, plan):
    examples = [models.example(seed) for seed in range(7)]
    with Engine(warmed, plan=plan) as engine:
        answers = [future.result(30) for future in [engine.submit(x) for x in examples]]
    expected = np.stack([models.answers(warmed, x["x"])[1] for x in examples])
    np.testing.assert_allclose([a.scores for a in answers], expected, rtol=1e-5, atol=1e-5)
    assert [a.label for a in answers] == expected.argmax(1).tolist()
    assert {a.exit for a in answers} == {FINAL}
    assert {a.exit_depth for a in answers} == {1.0}


def test_an_early_answer_is_the_ramps_and_each_input_gets_its_own(warmed):
    examples = [models.example(seed) for seed in range(20)]
    with Engine(warmed, plan=ALWAYS) as engine:
        answers = [future.result(30) for future in [engine.submit(x) for x in examples]]
    expected = np.stack([models.answers(warmed, x["x"])[0][0] for x in examples])
    np.testing.assert_allclose([a.scores for a in answers], expected, rtol=1e-5, atol=1e-5)
    assert {a.exit for a in answers} == {warmed.sites[0].name}
    probability = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose([a.error for a in answers], 1 - probability.max(1), atol=1e-5)


def test_an_answer_is_done_while_a_later_stage_of_its_batch_is_held_back():
    gate = threading.Event()
    gate.set()
    made = models.programs(models.gated(gate), (1,))
    made.warm_merged((0,))
    made.warm_atomic()
    gate.clear()
    records: list[BatchRecord] = []
    with Engine(made, plan=ExitPlan((0,), (1.0,)), observer=records.append) as engine:
        early = engine.submit(models.example())
        held = engine.submit(models.example(1), exact=True)
        assert early.result(30).exit == made.sites[0].name
        # The last stage of the first batch cannot have run: its gate is still closed.
        assert not records
        assert not held.done()
        gate.set()
        assert held.result(30).exit == FINAL
        assert engine.wait_idle(30)
    assert sum(map(_batch_size, records)) == 2
    (left,) = [record for record in records if record.exits[0] == 0]
    assert left.released_s[0] < left.finished_s


def test_every_input_runs_to_the_end_and_is_recorded(warmed):
    records: list[BatchRecord] = []
    examples = [models.example(seed) for seed in range(11)]
    with Engine(warmed, plan=ALWAYS, observer=records.append) as engine:
        for future in [engine.submit(x) for x in examples]:
            future.result(30)
        assert engine.wait_idle(30)
    assert sum(map(_batch_size, records)) == len(examples)
    for record in records:
        assert record.shape in warmed.batch_sizes
        assert record.shape >= _batch_size(record)
        assert record.errors.shape == (_batch_size(record), 2)
        assert (record.exits == 0).all()
        assert (record.released_s <= record.finished_s).all()
        assert (record.arrived_s <= record.dispatched_s).all()
    predictions = np.concatenate([r.predictions for r in records])
    finals = np.concatenate([r.final_predictions for r in records])
    expected = [models.answers(warmed, x["x"]) for x in examples]
    assert predictions[:, 1].tolist() == [int(early[1].argmax()) for early, _ in expected]
    assert finals.tolist() == [int(final.argmax()) for _, final in expected]


def test_exact_requests_never_exit(warmed):
    with Engine(warmed, plan=ALWAYS) as engine:
        assert engine.submit(models.example(), exact=True).result(30).exit == FINAL


def test_thresholds_apply_strictly_below(warmed):
    example = models.example(3)
    with Engine(warmed, plan=NEVER) as engine:
        engine.set_plan(ALWAYS)
        error = engine.submit(example).result(30).error
        engine.set_plan(ExitPlan((0, 1), (error, 0.0)))
        assert engine.submit(example).result(30).exit == FINAL
        above = float(np.nextafter(np.float32(error), np.float32(1)))
        engine.set_plan(ExitPlan((0, 1), (above, 0.0)))
        assert engine.submit(example).result(30).exit == warmed.sites[0].name


def test_plans_can_change_to_any_set_of_sites_without_a_merged_program(warmed):
    with Engine(warmed) as engine:
        for sites in ((), (0,), (1,), (0, 1)):
            engine.set_plan(ExitPlan(sites, (1.0,) * len(sites)))
            answer = engine.submit(models.example()).result(30)
            assert answer.exit == (warmed.sites[sites[0]].name if sites else FINAL)
    with pytest.raises(ConfigError, match=r"expected ascending sites with a trained ramp"):
        engine.set_plan(ExitPlan((5,), (0.0,)))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"inputs are \[\], expected \['x'\]"),
        ({"y": np.zeros(6, "f")}, "input 'x' is missing"),
        ({"x": np.zeros(5, "f")}, r"float32\[5\], expected float32\[6\]"),
        ({"x": np.zeros(6, "d")}, r"float64\[6\], expected float32\[6\]"),
    ],
)
def test_requests_that_do_not_fit_are_refused(warmed, inputs, message):
    with Engine(warmed) as engine, pytest.raises(RequestError, match=message):
        engine.submit(inputs)


def test_a_full_queue_refuses_and_the_rest_is_answered(warmed):
    engine = Engine(warmed, EngineConfig(queue_size=3))
    futures = [engine.submit(models.example(i)) for i in range(3)]
    with pytest.raises(QueueFullError, match="3 requests wait already"):
        engine.submit(models.example())
    with engine:
        assert all(f.result(30).exit == FINAL for f in futures)


def test_not_a_number_is_an_error_for_that_request_only(warmed):
    records: list[BatchRecord] = []
    bad = {"x": np.full(6, np.nan, np.float32)}
    engine = Engine(warmed, plan=ALWAYS, observer=records.append)
    futures = [engine.submit(x) for x in (models.example(), bad, models.example(1))]
    with engine:
        assert futures[0].result(30).exit == warmed.sites[0].name
        with pytest.raises(NumericsError, match="not finite"):
            futures[1].result(30)
        assert futures[2].result(30).exit == warmed.sites[0].name
        assert engine.wait_idle(30)
    assert sum(map(_batch_size, records)) == 2


def test_close_answers_what_was_accepted(warmed):
    engine = Engine(warmed)
    futures = [engine.submit(models.example(i)) for i in range(9)]
    engine.start()
    engine.close()
    assert all(f.done() and f.result().exit == FINAL for f in futures)
    assert not engine.ready
    with pytest.raises(EngineClosedError, match="takes no more requests"):
        engine.submit(models.example())


def test_close_without_draining_tells_those_who_wait(warmed):
    engine = Engine(warmed)
    waiting = engine.submit(models.example())
    engine.close(drain=False)
    with pytest.raises(EngineClosedError, match="closed before this was answered"):
        waiting.result(30)
    assert engine.wait_idle(1)


def test_cancelled_requests_take_no_place(warmed):
    records: list[BatchRecord] = []
    engine = Engine(warmed, observer=records.append)
    futures = [engine.submit(models.example(i)) for i in range(4)]
    assert futures[1].cancel()
    with engine:
        assert futures[3].result(30).exit == FINAL
        assert engine.wait_idle(30)
    assert sum(map(_batch_size, records)) == 3


def test_a_stage_that_fails_reaches_every_future_and_the_engine_goes_on():
    fails = threading.Event()

    def check(x):
        if fails.is_set():
            raise RuntimeError("the device is on fire")
        return x

    def guarded(x):
        return jax.pure_callback(check, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    made = models.programs(models.mlp(guarded), (2,))
    made.warm_merged(())
    engine = Engine(made)
    futures: list[Future] = [engine.submit(models.example(i)) for i in range(2)]
    fails.set()
    with engine:
        for future in futures:
            with pytest.raises(Exception, match="on fire"):
                future.result(30)
        fails.clear()
        assert engine.submit(models.example()).result(30).exit == FINAL


def test_an_observer_that_fails_loses_no_answer(warmed, caplog):
    def observer(record: BatchRecord) -> None:
        raise ValueError("no disk")

    with Engine(warmed, observer=observer) as engine:
        assert engine.submit(models.example()).result(30).exit == FINAL
        assert engine.submit(models.example()).result(30).exit == FINAL
        assert engine.wait_idle(30)
    assert "no disk" in caplog.text


def test_batches_wait_for_a_place_on_the_device():
    gate = threading.Event()
    gate.set()
    made = models.programs(models.gated(gate), (1, 2, 4))
    made.warm_merged((0,))
    made.warm_atomic()
    gate.clear()
    records: list[BatchRecord] = []
    plan = ExitPlan((0,), (1.0,))
    config = EngineConfig(max_in_flight=1)
    with Engine(made, config, plan=plan, observer=records.append) as engine:
        engine.submit(models.example()).result(30)
        rest = [engine.submit(models.example(i)) for i in range(4)]
        # One batch is on the device and stays there: the four must wait together.
        assert not any(f.done() for f in rest)
        assert engine.waiting == 4
        gate.set()
        for future in rest:
            future.result(30)
        assert engine.wait_idle(30)
    assert [_batch_size(r) for r in records] == [1, 4]


def test_a_model_without_described_inputs_is_refused():
    with pytest.raises(ConfigError, match=r"max_in_flight is 0"):
        EngineConfig(max_in_flight=0)


def test_a_batch_with_two_whole_batches_behind_it_runs_as_the_single_program(warmed):
    records: list[BatchRecord] = []
    engine = Engine(warmed, plan=ALWAYS, load_policy=by_worth, observer=records.append)
    futures = [engine.submit(models.example(seed)) for seed in range(13)]
    with engine:
        answers = [future.result(30) for future in futures]
        assert engine.wait_idle(30)
    assert [record.sites for record in records] == [(), *[(0, 1)] * 3]
    exits = [answer.exit for answer in answers]
    assert exits == [FINAL] * 4 + [warmed.sites[0].name] * 9


def test_another_set_of_ramps_runs_at_once_and_on_merged_stages_when_they_are_ready():
    made = models.programs(models.mlp())
    made.warm_atomic()
    made.warm_merged(())
    with Engine(made) as engine:
        assert not made.route((0,), 1).merged
        engine.set_plan(ExitPlan((0,), (1.0,)))
        assert engine.submit(models.example()).result(30).exit == made.sites[0].name
        made.prepare((0,)).result(60)
        assert all(made.route((0,), batch).merged for batch in made.batch_sizes)
        assert engine.submit(models.example()).result(30).exit == made.sites[0].name
    made.close()


def test_no_more_leave_early_than_the_cap_allows(warmed):
    with Engine(warmed, plan=replace(ALWAYS, exit_cap=3)) as engine:
        first = [engine.submit(models.example(seed)).result(30).exit for seed in range(6)]
        engine.set_plan(replace(ALWAYS, exit_cap=5))
        later = [engine.submit(models.example(seed)).result(30).exit for seed in range(4)]
    early = warmed.sites[0].name
    assert first == [early] * 3 + [FINAL] * 3
    assert later == [early] * 2 + [FINAL] * 2, "the cap counts from the start"


@pytest.mark.parametrize("sites", [(), (0,), (1,), (0, 1)])
def test_a_shadow_batch_says_what_every_ramp_would_have_answered(warmed, sites):
    records: list[BatchRecord] = []
    plan = ExitPlan(sites, (1.0,) * len(sites), shadow_every=2)
    examples = [models.example(seed) for seed in range(4)]
    with Engine(warmed, plan=plan, observer=records.append) as engine:
        for example in examples:
            engine.submit(example).result(30)
            assert engine.wait_idle(30)
    assert [record.shadow is not None for record in records] == [False, True, False, True]
    for record, example in zip(records, examples, strict=True):
        assert record.exits.tolist() == [0], "its own answers leave as ever"
        if record.shadow is not None:
            early, final = models.answers(warmed, example["x"])
            assert record.shadow.sites == (0, 1)
            assert record.shadow.predictions.tolist() == [[int(e.argmax()) for e in early]]
            probability = [np.exp(e) / np.exp(e).sum() for e in early]
            wanted = [1 - p.max() for p in probability]
            np.testing.assert_allclose(record.shadow.errors[0], wanted, atol=1e-5)
            assert record.final_predictions.tolist() == [int(final.argmax())]


def test_the_answers_of_a_shadow_batch_leave_before_its_other_heads_run():
    """The heads of inactive ramps come behind the original's answer in the queue of the device."""
    made = models.programs(models.mlp(), (1,))
    made.warm_atomic()
    route = made.shadow_route((1,), 1)
    answers = list(route.dispatch(made.ramp_params, [models.example()["x"][None]]))
    early, final = models.answers(made, models.example()["x"])
    for answer, logits in zip(answers, (early[1], final, early[0]), strict=True):
        np.testing.assert_allclose(np.asarray(answer)[0, 2:], logits, rtol=1e-5, atol=1e-5)


def test_a_batch_that_fails_after_early_answers_tells_how_many_were_lost():
    gate = threading.Event()
    gate.set()
    made = models.programs(models.gated(gate), (1,))
    made.warm_merged((0,))
    made.warm_atomic()
    records: list[BatchRecord] = []
    with Engine(made, plan=ExitPlan((0,), (1.0,)), observer=records.append) as engine:
        original = made.finer

        def failing(route):
            finer = original(route)
            return replace(
                finer, segments=(*finer.segments[:-1], models.broken(route.segments[-1]))
            )

        made.finer = failing
        assert engine.submit(models.example()).result(30).exit == made.sites[0].name
        assert engine.wait_idle(30)
    assert [(len(r.exits), r.lost) for r in records] == [(0, 1)]
