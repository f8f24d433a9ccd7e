"""History: a sample a second, of the seconds before it, in memory that does not grow."""

import json

import numpy as np
import pytest

from apparate_jax.core import ExitPlan
from apparate_jax.serve.telemetry import status_of
from apparate_jax.serve.telemetry.counts import RECENT, Recent
from apparate_jax.serve.telemetry.history import SAMPLES, History
from tests.serve.telemetry.test_telemetry import PLAN, Engine, record, statistics

NAMES = ("layer_0", "layer_1", "layer_2")


def answers(finished_s, exits=(0, -1), latency_ms=(4.0, 10.0), wrong=(True, False)):
    recent = Recent()
    recent.push(
        finished_s,
        np.asarray(latency_ms),
        np.full(len(exits), 11.0),
        np.asarray(exits, np.int32),
        np.asarray(wrong),
    )
    return recent


def taken(history, now_s, recent=None, plan=PLAN):
    history.sample(now_s, 1000.0 + now_s, recent or Recent(), plan, 3)


def test_a_sample_is_of_the_seconds_before_it():
    history = History(NAMES)
    taken(history, 10.0, answers(9.0))
    taken(history, 20.0, answers(9.0))
    found = history.last()
    assert found["at_s"] == [1010.0, 1020.0] and found["queue"] == [3.0, 3.0]
    assert found["throughput_rps"] == [0.4, 0.0]
    assert found["p50_ms"] == [7.0, None] and found["vanilla_p95_ms"] == [11.0, None]
    # the window is of answers, not of seconds
    assert found["disagreement"] == [0.5, 0.5]
    assert found["exits"] == {"layer_0": [0.5, None], "layer_2": [0.0, None], "final": [0.5, None]}
    assert found["thresholds"] == {"layer_0": [0.25, 0.25], "layer_2": [0.5, 0.5]}


def test_ramps_have_columns_while_they_are_in_sight():
    history = History(NAMES)
    taken(history, 1.0, plan=ExitPlan((1,), (0.5,)))
    taken(history, 2.0, plan=ExitPlan((0,), (0.25,)))
    assert history.last()["thresholds"] == {"layer_0": [None, 0.25], "layer_1": [0.5, None]}
    assert history.last(1)["thresholds"] == {"layer_0": [0.25]}
    # one that was turned off and had answers under way
    taken(history, 3.0, answers(3.0, exits=(2, 2)), ExitPlan())
    assert history.last(1)["exits"] == {"layer_2": [1.0], "final": [0.0]}


def test_it_ends_where_memory_does_and_keeps_the_latest():
    history = History(NAMES)
    for second in range(SAMPLES + 5):
        taken(history, float(second))
    found = history.last(10 * SAMPLES)
    assert len(found["at_s"]) == SAMPLES and found["at_s"][-1] == 1000.0 + SAMPLES + 4
    assert history.last(2)["at_s"] == found["at_s"][-2:]
    assert history.last(0)["at_s"] == []


def test_time_goes_on_when_the_clock_is_set_back():
    history = History(NAMES)
    for now_s, at_s in ((1.0, 1000.0), (2.0, 1001.0), (3.0, 500.0)):
        history.sample(now_s, at_s, Recent(), PLAN, 0)
    assert history.last()["at_s"] == [1000.0, 1001.0, 1002.0]


def test_one_a_second():
    history = History(NAMES)
    assert history.due(0.0)
    taken(history, 0.0)
    assert not history.due(0.9) and history.due(1.0)


def test_batches_and_questions_take_samples():
    made = statistics()
    made.observe(record())
    made.observe(record())  # at the same moment
    assert "history" not in status_of(made, 10.5)
    assert len(status_of(made, 10.9, history=SAMPLES)["history"]["at_s"]) == 1
    assert len(status_of(made, 12.1, history=SAMPLES)["history"]["at_s"]) == 2
    assert len(status_of(made, 14.1, history=2)["history"]["at_s"]) == 2


def test_it_is_json_before_anything_happened():
    made = statistics(Engine(plan=ExitPlan()))
    found = json.loads(json.dumps(status_of(made, 0.0, history=10), allow_nan=False))["history"]
    assert found["p50_ms"] == [None] and found["thresholds"] == {}


@pytest.mark.parametrize(("per_s", "expected"), [(100, 100.0), (10_000, 10_000.0)])
def test_throughput_beyond_what_is_kept(per_s, expected):
    recent = Recent()
    batch = per_s // 100
    for n in range(200):
        zeros = np.zeros(batch)
        recent.push(n / 100, zeros, zeros, zeros.astype(np.int32), zeros.astype(bool))
    assert per_s < RECENT or len(recent.rows()) == RECENT
    assert recent.rate(2.0, 1.0) == pytest.approx(expected, rel=0.03)
