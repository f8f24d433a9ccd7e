"""The report: the keys that others rely on, and numbers that can be computed by hand."""

import json
import math

import numpy as np
import pytest

from apparate_jax.bench.comparison import AGAIN
from apparate_jax.bench.report import (
    Subject,
    build_report,
    environment,
    percentiles,
    windows_below,
)
from apparate_jax.serve.service import Service
from tests.bench import tiny
from tests.serve import models

ORACLE_MS = np.array([2.0, 3.0, 4.0, 5.0] * 2)


@pytest.fixture(scope="module")
def by_hand():
    """A service that compiles nothing: only its names and its profile are looked at."""
    return Service(models.programs(models.mlp()), tiny.PROFILE, tiny.config(accuracy=0.9))


@pytest.fixture(scope="module")
def report(by_hand):
    return build_report(Subject.of(by_hand, "rows.npz"), tiny.result(), 0.4, ORACLE_MS)


def test_the_keys_that_others_rely_on(report):
    latency = {"p25_ms", "p50_ms", "p95_ms", "p99_ms", "throughput_rps"}
    top = {"model", "workload", "slo_ms", "accuracy_constraint", "load_frac", "environment"}
    assert top <= set(report)
    assert latency <= set(report["vanilla"]) and latency <= set(report["apparate"])
    assert {"agreement", "windows_below_constraint", "exit_rates"} <= set(report["apparate"])
    assert report["oracle"]["p50_ms"] == 3.5
    assert {"device", "cores", "python", "jax", "platform"} <= set(report["environment"])
    assert len(report["rounds"]) == 2
    assert report == json.loads(json.dumps(report, allow_nan=False)), "JSON values only"


def test_numbers_by_hand(report):
    assert report["slo_ms"] == 20.0, "twice the original's time for one input"
    assert report["requests"] == 8 and report["rate_rps"] == 40.0
    assert report["vanilla"]["p50_ms"] == 13.0 and report["apparate"]["p50_ms"] == 6.5
    assert report["vanilla"]["throughput_rps"] == 105.0
    assert report["compared"]["p50_saved_frac"] == 0.5
    assert report["compared"]["p50_ratio"] == {"median": 0.5, "rounds": [0.5, 0.5]}
    assert report["compared"]["throughput_ratio"]["rounds"] == [0.99, 1.0]
    assert report["compared"]["oracle_p50_saved_frac"] == pytest.approx(1 - 3.5 / 13, abs=1e-4)
    assert [r["first"] for r in report["rounds"]] == ["vanilla", "apparate"]


def test_agreement_counts_every_answer_that_was_given(report):
    early = report["apparate"]
    assert early["answers_checked"] == 16
    assert early["agreement"] == 1 - 1 / 16 and early["agreement_at_load"] == 1 - 1 / 8
    assert early["windows_below_constraint"] is None, "fewer answers than a window"
    assert (early["tunings"], early["ramps_stopped"]) == (3, 1)


def test_exits_are_named_and_add_up(report, by_hand):
    names = [site.name for site in by_hand.programs.sites]
    early = report["apparate"]
    assert early["exit_rates"] == {names[0]: 0.375, names[1]: 0.375, "final": 0.25}
    assert early["thresholds"] == {names[0]: 0.25, names[1]: 0.0}
    assert list(early["depths"]) == names
    assert early["overhead_frac"] == pytest.approx((0.1 + 0.05) / 2)
    assert [shape["release_ms"] for shape in report["profile"]] == [[3.0, 8.0], [6.0, 16.0]]


def test_without_an_oracle(by_hand):
    made = build_report(Subject.of(by_hand, "rows.npz"), tiny.result(), 0.4, None)
    assert made["oracle"] == {"p50_ms": None}
    assert "oracle_p50_saved_frac" not in made["compared"]


def test_percentiles_are_of_what_was_measured():
    values = np.random.default_rng(0).exponential(10, 999)
    found = percentiles(values)
    ordered = np.sort(values)
    assert found["p50_ms"] == round(ordered[499], 3)
    assert list(found.values()) == sorted(found.values())
    assert percentiles(np.array([4.0])) == dict.fromkeys(found, 4.0)


def test_windows_below_the_constraint_against_brute_force():
    right = np.random.default_rng(1).uniform(size=3000) > 0.012
    starts = range(0, 3000 - 512 + 1, 64)
    below = [right[s : s + 512].mean() < 0.99 for s in starts]
    assert 0 < sum(below) < len(below)
    assert windows_below(right, 0.99) == round(sum(below) / len(below), 4)
    assert windows_below(right[:511], 0.99) is None
    assert windows_below(np.ones(512, np.bool_), 1.0) == 0.0
    assert windows_below(np.zeros(512, np.bool_), 0.99) == 1.0


def test_the_environment_is_this_one():
    found = environment()
    assert found["cores"] >= 1 and all(found.values())
    assert not any(isinstance(v, float) and math.isnan(v) for v in found.values())


def test_the_original_against_itself(by_hand):
    result = tiny.result()
    rounds = tuple(
        r._replace(
            answers=r.answers | {AGAIN: r.answers["apparate"]},
            throughput_rps=r.throughput_rps | {AGAIN: 50.0},
        )
        for r in result.rounds
    )
    made = build_report(Subject.of(by_hand, "rows.npz"), result._replace(rounds=rounds), 0.4, None)
    floor = made["compared"]["noise_floor"]
    assert floor["p50_ratio"] == made["compared"]["p50_ratio"]
    assert floor["p95_ratio"] == made["compared"]["p95_ratio"]
    rates = [r.throughput_rps["vanilla"] for r in result.rounds]
    assert floor["throughput_ratio"]["rounds"] == [round(50.0 / rate, 4) for rate in rates]
    assert [AGAIN in r for r in made["rounds"]] == [True, True]
