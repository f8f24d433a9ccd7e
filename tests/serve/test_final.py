"""The original model's own answer besides an early one: always, and with the request's errors."""

import threading
from concurrent.futures import CancelledError, Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.core import FINAL, ExitPlan
from apparate_jax.errors import EngineClosedError, NumericsError
from apparate_jax.serve import Engine
from tests.serve import models


@pytest.fixture(scope="module")
def warmed():
    made = models.programs(models.mlp())
    made.warm_merged(())
    made.warm_merged((0, 1))
    return made


def test_an_early_answer_is_followed_by_the_originals(warmed):
    examples = [models.example(seed) for seed in range(5)]
    finals: list[Future] = [Future() for _ in examples]
    with Engine(warmed, plan=ExitPlan((0, 1), (1.0, 1.0))) as engine:
        early = [engine.submit(x, final=final) for x, final in zip(examples, finals, strict=True)]
        answers = [future.result(30) for future in finals]
    assert {future.result(30).exit for future in early} == {warmed.sites[0].name}
    assert {(answer.exit, answer.exit_depth) for answer in answers} == {(FINAL, 1.0)}
    _, expected = models.answers(warmed, np.stack([x["x"] for x in examples]))
    np.testing.assert_allclose([a.scores for a in answers], expected, rtol=1e-5, atol=1e-6)


def test_an_answer_that_did_not_leave_early_is_both(warmed):
    final: Future = Future()
    with Engine(warmed, plan=ExitPlan((0, 1), (1.0, 1.0))) as engine:
        answer = engine.submit(models.example(), exact=True, final=final).result(30)
        assert (answer.exit, final.result(30).label) == (FINAL, answer.label)


def test_the_early_answer_does_not_wait_for_it():
    gate = threading.Event()
    gate.set()
    made = models.programs(models.gated(gate), (1,))
    made.warm_merged((0,))
    gate.clear()
    final: Future = Future()
    with Engine(made, plan=ExitPlan((0,), (1.0,))) as engine:
        early = engine.submit(models.example(), final=final).result(30)
        assert (early.exit, final.done()) == (made.sites[0].name, False)
        assert not final.cancel(), "what has begun runs to its end"
        gate.set()
        assert final.result(30).exit == FINAL


def test_an_early_answer_whose_original_is_not_finite_has_its_error():
    made = models.programs(models.mlp(lambda x: x + jnp.nan), (1,))
    made.warm_merged((0,))
    final: Future = Future()
    with Engine(made, plan=ExitPlan((0,), (1.0,))) as engine:
        assert engine.submit(models.example(), final=final).result(30).exit == made.sites[0].name
        with pytest.raises(NumericsError, match="not finite"):
            final.result(30)


def test_a_stage_that_fails_after_the_early_answer_reaches_it():
    fails = threading.Event()

    def check(x):
        if fails.is_set():
            raise RuntimeError("the device is on fire")
        return x

    def guarded(x):
        return jax.pure_callback(check, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    made = models.programs(models.mlp(guarded), (1,))
    made.warm_merged((0,))
    fails.set()
    final: Future = Future()
    with Engine(made, plan=ExitPlan((0,), (1.0,))) as engine:
        engine.submit(models.example(), final=final).exception(30)
        with pytest.raises(Exception, match="on fire"):
            final.result(30)


def test_what_is_withdrawn_or_refused_waits_for_nothing(warmed):
    finals: list[Future] = [Future() for _ in range(3)]
    engine = Engine(warmed)
    futures = [engine.submit(models.example(i), final=final) for i, final in enumerate(finals)]
    assert futures[0].cancel() and finals[1].cancel()
    with engine:
        assert futures[2].result(30).exit == finals[2].result(30).exit == FINAL
        assert futures[1].result(30).exit == FINAL
        with pytest.raises(CancelledError):
            finals[0].result(30)
    closed: Future = Future()
    engine = Engine(warmed)
    engine.submit(models.example(), final=closed)
    engine.close(drain=False)
    with pytest.raises(EngineClosedError):
        closed.result(30)
