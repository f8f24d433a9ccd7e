"""Rows of one request: order, one wake-up, errors, and what is withdrawn."""

import asyncio
import threading
import time

import numpy as np
import pytest

from apparate_jax.errors import NumericsError, QueueFullError
from apparate_jax.serve.inference.answers import Terms, answer_rows
from tests.serve.inference.linear import LinearEngine, logits_of


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often other threads wake the loop."""

    def __init__(self):
        super().__init__()
        self.home = threading.get_ident()
        self.wakes = 0

    def call_soon_threadsafe(self, callback, *args, context=None):
        self.wakes += threading.get_ident() != self.home
        return super().call_soon_threadsafe(callback, *args, context=context)


@pytest.fixture
def engine():
    engine = LinearEngine()
    yield engine
    engine.close()


def run(coroutine):
    """Run to the end on a counting loop; its result and the number of wake-ups."""
    loop = CountingLoop()
    try:
        return loop.run_until_complete(coroutine), loop.wakes
    finally:
        loop.close()


def rows(count):
    rng = np.random.default_rng(count)
    return {
        "x": rng.normal(size=(count, 3)).astype(np.float32),
        "ids": rng.integers(0, 4, (count, 2)).astype(np.int32),
    }


@pytest.mark.parametrize("count", [1, 2, 40])
def test_answers_come_in_the_order_of_the_rows(engine, count):
    inputs = rows(count)
    answers, _ = run(answer_rows(engine, inputs))
    expected = logits_of(**inputs)
    np.testing.assert_allclose([a.scores for a in answers], expected, rtol=1e-5)
    assert [a.label for a in answers] == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("count", [1, 40])
def test_a_request_wakes_the_loop_once(engine, count):
    async def held():
        engine.gate.clear()
        asyncio.get_running_loop().call_soon(engine.gate.set)
        return await answer_rows(engine, rows(count))

    answers, wakes = run(held())
    assert len(answers) == count
    assert wakes == 1


def test_the_first_error_of_a_row_is_the_requests(engine):
    inputs = rows(4)
    inputs["x"][2] = np.nan
    for _ in range(2):
        with pytest.raises(NumericsError, match="not finite"):
            run(answer_rows(engine, inputs))
    assert engine.answered == 6


def test_a_refused_row_withdraws_those_before_it():
    engine = LinearEngine(queue_size=3)
    engine.gate.clear()
    blocker = engine.submit({name: array[0] for name, array in rows(1).items()})
    assert engine.taken.wait(20)
    with pytest.raises(QueueFullError):
        run(answer_rows(engine, rows(4)))
    engine.gate.set()
    assert blocker.result(20) is not None
    engine.close()
    assert (engine.submitted, engine.answered) == (4, 1)


def test_a_passed_deadline_withdraws_the_rows(engine):
    engine.gate.clear()

    async def hurried():
        await answer_rows(engine, rows(3), Terms(deadline_s=time.monotonic() + 0.01))

    with pytest.raises(TimeoutError):
        run(hurried())
    engine.close()
    assert (engine.submitted, engine.answered) == (3, 0)


def test_examples_of_single_numbers_are_arrays(engine):
    seen = []

    class Recorder:
        def submit(self, inputs, *, exact=False):
            seen.append(inputs["v"])
            return engine.submit({name: array[0] for name, array in rows(1).items()})

    run(answer_rows(Recorder(), {"v": np.arange(2, dtype=np.float32)}))
    assert [type(v) for v in seen] == [np.ndarray, np.ndarray]
    assert [v.shape for v in seen] == [(), ()]
