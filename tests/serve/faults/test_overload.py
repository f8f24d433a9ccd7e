"""Three times what the engine can take: goodput stays, waiting is bounded, and it recovers."""

import threading
import time

import jax
import numpy as np
import psutil

from apparate_jax.core import FINAL
from apparate_jax.errors import QueueFullError
from apparate_jax.serve.engine import Engine, EngineConfig
from tests.serve import models

BATCH, QUEUE, BATCH_S = 4, 16, 0.02
CAPACITY_RPS = BATCH / BATCH_S
OFFERED_S = 2.0
DEVICE_BATCHES = 2


def slow_programs():
    """A batch takes ``BATCH_S``, whatever else the machine does."""

    def wait(x):
        time.sleep(BATCH_S)
        return x

    def hold(x):
        return jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    made = models.programs(models.mlp(hold), (BATCH,))
    made.warm_merged(())
    return made


def test_three_times_the_capacity():
    engine = Engine(slow_programs(), EngineConfig(max_in_flight=DEVICE_BATCHES, queue_size=QUEUE))
    latencies, full, futures, lock = [], 0, [], threading.Lock()
    with engine:
        engine.submit(models.example()).result(30)
        rss = psutil.Process().memory_info().rss
        begun = time.monotonic()
        for i in range(int(3 * CAPACITY_RPS * OFFERED_S)):
            due = begun + i / (3 * CAPACITY_RPS)
            time.sleep(max(0.0, due - time.monotonic()))
            sent = time.monotonic()

            def note(_, sent=sent):
                with lock:
                    latencies.append(time.monotonic() - sent)

            try:
                futures.append((i, engine.submit(models.example(i))))
                futures[-1][1].add_done_callback(note)
            except QueueFullError:
                full += 1
        offered_s = time.monotonic() - begun
        answered = [(i, future.result(30)) for i, future in futures]
        ended_s = time.monotonic() - begun
        assert engine.wait_idle(10) and engine.waiting == 0
        begun = time.monotonic()
        assert engine.submit(models.example()).result(30).exit == FINAL
        recovered_s = time.monotonic() - begun
        grown = psutil.Process().memory_info().rss - rss
    batches = DEVICE_BATCHES + QUEUE / BATCH + 1
    # A busy machine makes batches longer than they are asked to be, never shorter.
    batch_s = ended_s / np.ceil(len(answered) / BATCH)
    assert full > 0.3 * len(answered), "it was no overload"
    assert len(answered) >= 0.9 * CAPACITY_RPS * offered_s * min(1.0, BATCH_S / batch_s)
    assert batch_s < 3 * BATCH_S, "the device was kept busy"
    assert np.percentile(latencies, 99) < 1.5 * batches * batch_s
    assert recovered_s < 5 * batch_s
    assert grown < 24 * 2**20
    for i, answer in answered[:: len(answered) // 40]:
        expected = models.answers(engine._programs, models.example(i)["x"])[1]
        np.testing.assert_allclose(answer.scores, expected, rtol=1e-4, atol=1e-4)
