"""The replayed benchmark: what a report is made of, from a recording alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.bench.comparison import SYSTEMS
from apparate_jax.bench.replayed import (
    ReplayedConfig,
    oracle_of,
    plan_changes,
    policy,
    run_replayed,
    subject,
)
from apparate_jax.bench.report import build_report
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import fixed
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError
from tests.bench import tiny

SHORT = ReplayedConfig(requests=300, settle=40, saturated=80, seed=2)
PLAN = ExitPlan((0, 2), (0.1, 0.2))


@pytest.fixture(scope="module")
def run():
    stream = tiny.recording(90)
    return stream, *run_replayed(stream, fixed(PLAN), SHORT)


def test_both_systems_get_the_same_requests(run):
    _, result, replays = run
    (measured,) = result.rounds
    vanilla, early = (measured.answers[name] for name in SYSTEMS)
    np.testing.assert_array_equal(vanilla.arrived_s, early.arrived_s)
    assert len(vanilla.latency_ms) == 300 and len(result.outside.latency_ms) == 40
    assert measured.first_input == 40
    assert vanilla.right.all() and (vanilla.exits == 3).all()
    assert (early.exits < 3).any() and result.plan == PLAN
    assert set(replays) == set(SYSTEMS)


def test_the_rate_is_the_stated_share_of_the_throughput(run):
    _, result, _ = run
    (measured,) = result.rounds
    assert measured.throughput_rps["vanilla"] == pytest.approx(4 / 0.020)
    assert result.rate_rps == pytest.approx(0.4 * 4 / 0.020)


def test_a_rate_is_taken_as_it_is():
    stream = tiny.recording(90)
    result, _ = run_replayed(stream, fixed(PLAN), replace(SHORT, rate_rps=20.0))
    assert result.rate_rps == 20.0
    arrived = result.rounds[0].answers["vanilla"].arrived_s
    assert (len(arrived) - 1) / (arrived[-1] - arrived[0]) == pytest.approx(20.0, rel=0.2)
    report = build_report(subject(stream, 0.9), result, SHORT.load_frac, None)
    assert report["load_frac"] == 0.4
    report = build_report(subject(stream, 0.9), result, None, None)
    assert report["load_frac"] == pytest.approx(20.0 / (4 / 0.020))


def test_the_report_has_the_keys_of_the_live_one(run):
    stream, result, _ = run
    report = build_report(subject(stream, 0.9), result, 0.4, oracle_of(stream, result))
    keys = {"p25_ms", "p50_ms", "p95_ms", "p99_ms", "throughput_rps"}
    assert keys <= set(report["vanilla"]) and keys <= set(report["apparate"])
    assert report["model"] == "paper" and report["workload"] == "stream.csv"
    assert list(report["apparate"]["exit_rates"]) == ["near", "far", "final"]
    assert report["apparate"]["answers_checked"] == 340
    assert 0 < report["oracle"]["p50_ms"] < report["vanilla"]["p50_ms"]
    assert report == json.loads(json.dumps(report, allow_nan=False))


def test_the_oracle_leaves_at_the_earliest_right_site(run):
    stream, result, _ = run
    vanilla = result.rounds[0].answers["vanilla"]
    made = oracle_of(stream, result)
    rows = (40 + np.arange(300)) % 90
    right = stream.agrees[rows]
    none = ~right.any(axis=1)
    np.testing.assert_allclose(made[none], vanilla.latency_ms[none])
    assert (made[~none] < vanilla.latency_ms[~none]).all()


def test_a_trace_gives_the_times():
    trace = np.array([0.0, 1.0, 1.5, 4.0, 4.25, 8.0])
    stream = tiny.recording()
    result, replays = run_replayed(stream, fixed(PLAN), SHORT, trace=trace)
    arrived = replays["vanilla"].answers.arrived_s
    np.testing.assert_allclose(arrived, trace * 5 / 8 / result.rate_rps)
    assert len(result.rounds[0].answers["vanilla"].latency_ms) == 1, "the rest settles"


def test_the_policy_that_serves_learns_in_replay():
    """Nothing leaves at first; then thresholds open and the constraint is about held."""
    stream = tiny.recording(600, seed=5)
    control = ControlConfig(accuracy=0.8, window=512, tune_every=32)
    result, replays = run_replayed(
        stream, policy(stream, control), ReplayedConfig(requests=3000, settle=512)
    )
    early = result.rounds[0].answers["apparate"]
    assert (early.exits < 3).mean() > 0.1
    assert early.right.mean() > 0.75
    assert replays["apparate"].plans
    again, _ = run_replayed(
        stream, policy(stream, control), ReplayedConfig(requests=3000, settle=512)
    )
    np.testing.assert_array_equal(again.rounds[0].answers["apparate"].latency_ms, early.latency_ms)


def test_changes_of_the_set_are_named(run):
    stream, _, replays = run
    assert plan_changes(stream, replays["apparate"]) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"load_frac": 0.0}, "load_frac is 0"),
        ({"load_frac": float("nan")}, "load_frac is nan"),
        ({"rate_rps": 0.0}, "rate_rps is 0.0, expected a number above 0, or none"),
        ({"requests": 0}, "requests is 0"),
        ({"saturated": 0}, "saturated 0"),
        ({"settle": -1}, "settle is -1"),
        ({"seed": -1}, "seed -1"),
        ({"arrivals": "bursts"}, "arrivals are 'bursts'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        ReplayedConfig(**settings)
