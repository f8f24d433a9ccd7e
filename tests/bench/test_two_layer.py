"""Two-layer serving against an example worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.bench.two_layer import Small, prefix_of, serve, small_of, tune
from apparate_jax.errors import DataError, QueueFullError
from apparate_jax.serve.engine import EngineConfig
from tests.bench import tiny

TIMES = {1: 1.0, 2: 2.0, 4: 3.0}
SMALL = Small("s", np.float32([0.1, 0.6, 0.2, 0.7]), np.array([True, True, False, True]), TIMES)


def test_by_hand():
    """Alone: 1 ms if sure, 1 + 10 if not. A batch of four with two sure: 3 ms, and 3 + 16."""
    engine = EngineConfig(max_in_flight=1)
    alone = np.array([0.0, 1.0, 2.0, 3.0])
    answers, end_s = serve(SMALL, 0.5, tiny.STREAM, alone, engine)
    np.testing.assert_allclose(answers.latency_ms, [1.0, 11.0, 1.0, 11.0])
    assert answers.exits.tolist() == [0, 1, 0, 1] and end_s == pytest.approx(3.011)
    assert answers.right.tolist() == [True, True, False, True]
    together, end_s = serve(SMALL, 0.5, tiny.STREAM, np.zeros(4), engine)
    np.testing.assert_allclose(together.latency_ms, [3.0, 19.0, 3.0, 19.0])
    assert together.shape.tolist() == [4] * 4 and end_s == pytest.approx(0.019)


def test_all_sure_costs_the_small_model_only():
    answers, _ = serve(SMALL, 1.0, tiny.STREAM, np.zeros(4), EngineConfig())
    np.testing.assert_allclose(answers.latency_ms, [3.0] * 4)


def test_its_threshold():
    assert tune(SMALL, 0.0) == pytest.approx(0.2) and tune(SMALL, 0.25) == 1.0


def test_the_first_layers_as_a_small_model():
    made = tiny.recording()
    small = prefix_of(made, 1)
    assert small.times_ms[1] == pytest.approx(10.0 * (5.0 + 0.2) / 10.0)
    np.testing.assert_array_equal(small.agrees, made.agrees[:, 1])
    np.testing.assert_array_equal(small.rows(np.array([3])).errors, made.errors[3:4, 1])


def test_a_recorded_small_model():
    large = tiny.recording()
    with pytest.raises(DataError, match="record the small model on the same data"):
        small_of(large, large)
    own = replace(large, final_errors=large.errors[:, 2])
    made = small_of(own, large)
    assert made.agrees.all() and made.times_ms == {1: 10.0, 2: 16.0, 4: 20.0}
    with pytest.raises(DataError, match="has 40 rows and paper 39"):
        small_of(own, large.slice(0, 39))


def test_a_full_queue():
    with pytest.raises(QueueFullError, match="more than 3 requests wait"):
        serve(SMALL, 0.5, tiny.STREAM, np.zeros(9), EngineConfig(queue_size=3))
