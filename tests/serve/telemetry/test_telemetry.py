"""Telemetry: counts by hand, what Prometheus reads, and the state at a glance."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from apparate_jax.control.interface import Info
from apparate_jax.control.thresholds import Tuning
from apparate_jax.core import BatchRecord, ExitPlan, Profile, ShapeProfile
from apparate_jax.serve.telemetry import Statistics, render, status_of
from apparate_jax.serve.telemetry.counts import BOUNDS_S, RECENT, Histogram, Recent

NAMES = ("layer_0", "layer_1", "layer_2")
PLAN = ExitPlan((0, 2), (0.25, 0.5), exit_cap=40)
SHAPES = tuple(
    ShapeProfile(b, 10.0, 11.0, (4.0, 9.0), (3.0, 6.0, 8.0), (0.5,) * 3, 2.0) for b in (1, 4)
)


@dataclass
class Engine:
    plan: ExitPlan = PLAN
    waiting: int = 3
    ready: bool = True


def statistics(engine=None):
    made = Statistics(
        NAMES, Profile("test", "0", (0, 2), SHAPES), max_disagreement=0.01, wall=lambda: 1000.0
    )
    made.watch(engine or Engine())
    return made


def record(exits=(0, 1, 2, 2), predictions=((1, 1),) * 4, **changes):
    """Four inputs, dispatched at 10 s after 1, 2, 3 and 4 ms; exits after 4, 9, 11 and 11 ms."""
    left = np.asarray([0.004, 0.009, 0.011])[list(exits)]
    given = {
        "sites": (0, 2),
        "shape": 4,
        "arrived_s": 10.0 - np.asarray([1, 2, 3, 4]) / 1e3,
        "dispatched_s": 10.0,
        "released_s": 10.0 + left,
        "finished_s": 10.011,
        "exits": np.asarray(exits, np.int32),
        "errors": np.zeros((4, 2), np.float32),
        "predictions": np.asarray(predictions, np.int32),
        "final_predictions": np.ones(4, np.int32),
    }
    return BatchRecord(**{**given, **changes})


def scraped(made):
    text, _ = render(lambda: {("bert", "2"): made})
    return {
        (sample.name, *(v for k, v in sorted(sample.labels.items()) if k not in _KEYS)): (
            sample.value
        )
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.labels["model"] == "bert" and sample.labels["version"] == "2"
    }


_KEYS = ("model", "version")


def test_a_batch_is_counted():
    made = statistics()
    made.observe(record(predictions=((1, 1), (1, 0), (0, 0), (1, 1)), lost=1))
    found = scraped(made)
    assert found["nv_inference_count_total",] == 4
    assert found["nv_inference_exec_count_total",] == 1
    assert found["nv_inference_queue_duration_us_total",] == pytest.approx(10_000)
    assert found["nv_inference_compute_infer_duration_us_total",] == pytest.approx(35_000)
    assert found["apparate_exits_total", "layer_0"] == 1
    assert found["apparate_exits_total", "layer_2"] == 1
    assert found["apparate_exits_total", "final"] == 2
    # the second left at the second ramp, which was wrong; one more was lost
    assert found["apparate_answers_checked_total",] == 5
    assert found["apparate_answers_disagreed_total",] == 2
    assert found["apparate_agreement",] == pytest.approx(0.6)
    assert found["apparate_window_disagreed",] == 1
    assert found["apparate_latency_seconds_count",] == 4
    assert found["apparate_latency_seconds_sum",] == pytest.approx(0.045)
    assert found["apparate_latency_seconds_bucket", "0.005"] == 1
    assert found["apparate_latency_seconds_bucket", "+Inf"] == 4
    assert found["apparate_batches_total", "4"] == 1
    assert found["apparate_batch_seconds_total", "4"] == pytest.approx(0.011)
    assert found["apparate_queue_size",] == 3 and found["apparate_ready",] == 1
    assert found["apparate_threshold", "layer_2"] == 0.5
    assert found["apparate_ramp_active", "layer_1"] == 0
    assert found["apparate_exit_cap",] == 40


def test_requests_are_counted():
    made = statistics()
    for _ in range(4):
        made.begun()
    made.answered(0.5, 0.125, 0.25)
    made.answered(0.5, 0.125, 0.25)
    made.failed("rejected", 0.25)
    found = scraped(made)
    assert found["nv_inference_request_success_total",] == 2
    assert found["nv_inference_request_duration_us_total",] == 1_000_000
    assert found["nv_inference_compute_input_duration_us_total",] == 250_000
    assert found["nv_inference_compute_output_duration_us_total",] == 500_000
    assert found["nv_inference_request_failure_total", "rejected"] == 1
    assert found["nv_inference_pending_request_count",] == 1


def test_decisions_are_counted_and_told():
    made = statistics()
    tuning = Tuning(np.zeros(2, np.float32), 1.0, 0.0)
    made.decided(PLAN, Info(tuning, (), ("tuned on 64 samples",), 0.02))
    made.decided(PLAN, Info(None, (1,), ("ramp at site 2 stopped",)))
    made.decided(ExitPlan((1,), (0.1,)), Info(None, (), ("ramps at sites [0, 2] become sites []",)))
    found = scraped(made)
    assert found["apparate_tuning_seconds_count",] == 1
    assert found["apparate_tuning_seconds_sum",] == pytest.approx(0.02)
    assert found["apparate_ramp_stops_total", "layer_2"] == 1
    assert found["apparate_set_changes_total",] == 1
    texts = [e["text"] for e in status_of(made, 0.0)["events"]]
    assert texts == ["ramp layer_2 stopped", "ramps layer_0, layer_2 become none"]


def test_utility_is_what_exits_save_less_what_the_ramp_costs():
    made = statistics()
    made.observe(record())
    found = scraped(made)
    # a quarter leaves at each; they save 11 - 4 and 11 - 9 ms; both ramps add 1 ms together
    assert found["apparate_utility_milliseconds", "layer_0"] == pytest.approx(7 / 4 - 0.5)
    assert found["apparate_utility_milliseconds", "layer_2"] == pytest.approx(2 / 4 - 0.5)


def test_the_state_at_a_glance():
    made = statistics()
    before = status_of(made, 10.0)
    assert before["latency_ms"]["p50"] is None and before["accuracy"]["agreement"] is None
    made.observe(record())
    found = status_of(made, 11.0)
    assert found["latency_ms"]["p50"] == pytest.approx((11 + 14) / 2)
    # without ramps the device takes 10 ms instead of 11
    assert found["vanilla_ms"]["p50"] == pytest.approx((12 + 13) / 2)
    assert found["throughput_rps"] == 0.4 and found["mean_batch"] == 4.0
    assert status_of(made, 30.0)["throughput_rps"] == 0.0
    exits = {one["exit"]: one for one in found["exits"]}
    assert list(exits) == ["layer_0", "layer_2", "final"]
    assert exits["layer_0"]["share_lately"] == 0.25 and exits["layer_0"]["threshold"] == 0.25
    assert exits["final"]["share_lately"] == 0.5 and exits["final"]["threshold"] is None


def test_a_batch_without_ramps_is_compared_as_it_was():
    made = statistics()
    none = np.zeros((4, 0), np.float32)
    bare = replace(
        record((2,) * 4),
        sites=(),
        exits=np.zeros(4, np.int32),
        errors=none,
        predictions=none.astype(np.int32),
    )
    made.observe(bare)
    found = status_of(made, 11.0)
    assert found["latency_ms"] == found["vanilla_ms"]
    assert found["control"]["bare_batches"] == 1


def test_models_are_told_apart_and_may_come_and_go():
    one, other = statistics(), statistics(Engine(ready=False))
    one.observe(record())
    models = {("a", "1"): one}
    assert b'nv_inference_count_total{model="a",version="1"} 4.0' in render(lambda: models)[0]
    models["b", "1"] = other
    text = render(lambda: models)[0]
    assert b'apparate_ready{model="a",version="1"} 1.0' in text
    assert b'apparate_ready{model="b",version="1"} 0.0' in text
    del models["a", "1"]
    assert b'model="a"' not in render(lambda: models)[0]


def test_the_last_answers_are_kept_and_older_ones_are_not():
    recent = Recent()
    for n in range(RECENT + 10):
        recent.push(float(n), np.asarray([float(n)]), np.zeros(1), np.zeros(1, np.int32),
                    np.zeros(1, np.bool_))  # fmt: skip
    assert recent.latency_ms[recent.rows(3)].tolist() == [RECENT + 7, RECENT + 8, RECENT + 9]
    assert len(recent.rows()) == RECENT
    assert len(recent.rows(since_s=RECENT + 4.5)) == 5


def test_a_duration_at_a_bound_is_in_its_bucket():
    histogram = Histogram()
    histogram.add(np.asarray([BOUNDS_S[2], 100.0]))
    assert dict(histogram.cumulative())[str(BOUNDS_S[2])] == 1
    assert dict(histogram.cumulative())[str(BOUNDS_S[1])] == 0
    assert dict(histogram.cumulative())["+Inf"] == 2
