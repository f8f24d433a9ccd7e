"""Studies: cells, their streams and what is made of their rows."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.bench.studies import STUDIES, largest_batch, run_study
from apparate_jax.bench.study import (
    Inputs,
    Pattern,
    StudyConfig,
    head_to_head,
    mean_saving,
    means,
    small_for,
    stream_task,
    usual,
)
from apparate_jax.errors import ConfigError, DataError
from tests.bench import tiny

TINY = StudyConfig(requests=300, settle=50, seeds=2, accuracy=0.9, load_frac=0.2)


def recorded(seed=0):
    made = tiny.recording(400, seed)
    return replace(made, entropies=made.errors**2)


def test_means_over_seeds():
    rows = [
        {"setting": "a", "system": "x", "seed": s, "disagreement": d, "p50_ms": 2.0, "kept_frac": k}
        for s, d, k in ((0, 0.01, 0.5), (1, 0.03, None))
    ]
    (row,) = means(rows)
    assert row["runs"] == 2 and row["disagreement"] == 0.02 and row["worst_disagreement"] == 0.03
    assert row["p50_ms"] == 2.0 and row["kept_frac"] is None and "seed" not in row


def test_head_to_head_goes_seed_by_seed():
    figures = {"a": (0.2, 0.3, 0.1), "b": (0.1, 0.2, 0.2)}
    rows = [
        {"system": name, "seed": seed, "saved": value}
        for name, values in figures.items()
        for seed, value in sorted(enumerate(values), reverse=name == "b")
    ]
    found = head_to_head(rows, "a", "b", "saved")
    assert (found["seeds"], found["seeds_above"], found["least_difference"]) == (3, 2, -0.1)
    assert found["a"] == [0.2, 0.3, 0.1] and found["b"] == [0.1, 0.2, 0.2]
    assert found["mean_relative_difference"] == pytest.approx((1 + 0.5 - 0.5) / 3, abs=1e-5)
    rows[-1]["saved"] = 0.0
    assert head_to_head(rows, "a", "b", "saved")["mean_relative_difference"] is None


def test_the_saving_of_exits():
    assert mean_saving(np.array([0, 1, 2, 2]), np.float32([4.0, 2.0])) == 1.5


def test_an_slo_bounds_the_batch():
    """Batches of 1, 2 and 4 take 10, 16 and 20 ms; half of the SLO holds one of them."""
    assert [largest_batch(tiny.STREAM, slo) for slo in (5.0, 20.0, 32.0, 80.0)] == [1, 1, 2, 4]


def test_the_stream_of_a_cell():
    inputs = Inputs((recorded(), recorded(1)))
    cell = usual(TINY)
    task = stream_task(inputs, cell, replace(TINY, stream="shift"), 0)
    assert len(task.ours.sample) == 40 and len(task.ours.stream) == 350
    np.testing.assert_array_equal(task.ours.sample.errors, recorded().errors[:40])
    alone = stream_task(inputs, replace(cell, traces=(1,), max_batch=2), TINY, 0)
    np.testing.assert_array_equal(alone.ours.sample.errors, recorded(1).errors[:40])
    assert [s.batch for s in alone.ours.stream.profile.shapes] == [1, 2]
    again = stream_task(inputs, cell, replace(TINY, stream="shift"), 0)
    np.testing.assert_array_equal(task.ours.stream.errors, again.ours.stream.errors)
    assert small_for(recorded()).name == "up to near"


@pytest.mark.parametrize(
    "name", [n for n in STUDIES if n not in ("baselines", "load", "window", "arrivals")]
)
def test_every_study_runs(name):
    config = replace(TINY, seeds=1, systems=("initial-only", "oracle"))
    report = run_study(name, Inputs((recorded(), recorded(1))), config)
    assert report["study"] == name and report["requests"] == 350 and report["rows"]
    settings = {row["setting"] for row in report["rows"]}
    for row in report["rows"]:
        assert 0.0 <= row["disagreement"] <= 1.0
        assert all(row.get(key, 0.0) is not ... for key, _ in STUDIES[name].keys)
    expected = {"accuracy": 4, "budget": 4, "slo": 3, "ramps": 2, "platform": 5, "tuner": 3}
    assert len(settings) == expected.get(name, 1)


def test_the_guard_against_hindsight():
    config = replace(TINY, seeds=1, requests=2000)
    rows = {row["system"]: row for row in run_study("guard", Inputs((recorded(),)), config)["rows"]}
    assert set(rows) == {"none", "long-run", "window"}
    assert rows["none"]["kept_frac"] >= rows["window"]["kept_frac"] > 0
    assert rows["window"]["disagreement"] <= 0.1


def test_searches_on_windows():
    rows = run_study("tuner", Inputs((recorded(),)), TINY)["rows"]
    assert {row["system"] for row in rows} >= {"exact", "greedy", "beam"}
    for row in rows:
        assert row["disagreement"] <= 0.1 and row["search_ms"] > 0
        assert row["of_exact_frac"] <= 1.0 + 1e-6


def test_capacity_may_be_exceeded():
    config = replace(TINY, seeds=1, systems=("vanilla",))
    rows = run_study("load", Inputs((recorded(),)), config)["rows"]
    assert [row["setting"] for row in rows][-1] == "120%"
    assert all(row["throughput_ratio"] == 1.0 for row in rows)


def test_arrivals_are_held_against_poissons():
    """A burst of all at once waits longer than the same requests one by one."""
    bursts = np.repeat(np.arange(50.0), 9)
    inputs = Inputs(
        (recorded(),), patterns=(Pattern("poisson"), Pattern("fixed"), Pattern("bursts", bursts))
    )
    config = replace(TINY, seeds=1, systems=("vanilla",))
    rows = {row["setting"]: row for row in run_study("arrivals", inputs, config)["rows"]}
    assert list(rows) == ["poisson", "fixed", "bursts"]
    assert rows["fixed"]["p95_ms"] < rows["poisson"]["p95_ms"] < rows["bursts"]["p95_ms"]
    with pytest.raises(DataError, match="the trace bursts has 450 arrivals, expected 650"):
        run_study("arrivals", inputs, replace(config, requests=600))


@pytest.mark.parametrize(
    "patterns", [(), (Pattern("poisson"),), (Pattern("a", np.arange(400.0)),) * 2]
)
def test_arrivals_need_others_of_other_names(patterns):
    with pytest.raises(ConfigError, match="expected others to hold against Poisson's"):
        run_study("arrivals", Inputs((recorded(),), patterns=patterns), TINY)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="the study is 'moon', expected one of baselines, accur"):
        run_study("moon", Inputs((recorded(),)))
    for wrong in ({"stream": "tide"}, {"seeds": 0}, {"systems": ("branchy",)}):
        with pytest.raises(ConfigError):
            replace(TINY, **wrong)
