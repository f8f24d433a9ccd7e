"""The live benchmark end to end, on real engines: what it must keep, whatever the machine does."""

import threading
from itertools import pairwise

import numpy as np
import pytest

from apparate_jax.bench.comparison import AGAIN, SYSTEMS, concatenate
from apparate_jax.bench.live import LiveConfig, run_live
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.bench.workload import stretch
from apparate_jax.errors import ConfigError, DataError, NumericsError, QueueFullError
from apparate_jax.serve.service import Service, prepare
from tests.bench import tiny

SHORT = LiveConfig(load_frac=0.1, rounds=2, round_s=0.4, saturation_s=0.15, seed=5)


class Watched(Service):
    """The same service; both engines' records are kept in ``RECORDS`` too."""

    def vanilla(self, observer=None):
        return super().vanilla(self._both("vanilla", observer))

    def apparate(self, observer=None, on_decision=None):
        return super().apparate(self._both("apparate", observer), on_decision)

    def _both(self, name, observer):
        def observe(record):
            RECORDS[name].append(record)
            observer(record)

        return observe


RECORDS = {}


def threads():
    return {t for t in threading.enumerate() if t.name.startswith("apparate")}


@pytest.fixture(scope="module")
def run(service):
    RECORDS.update({name: [] for name in SYSTEMS})
    before, steps = threads(), []
    result = run_live(Watched(*service), tiny.data(), SHORT, on_phase=lambda *s: steps.append(s))
    return result, {name: list(RECORDS[name]) for name in SYSTEMS}, steps, threads() - before


def left_at(record):
    """The site where each answer left, of two; 2 is the end."""
    return np.array([*record.sites, 2])[record.exits]


def rounds_of(records, result, name):
    """Per round, the records' columns in order of arrival: ``(labels, right, exits)``."""
    order = np.argsort(np.concatenate([r.arrived_s for r in records[name]]), kind="stable")
    labels, right, exits = (
        np.concatenate(columns)[order]
        for columns in zip(
            *((r.final_predictions, r.released_right, left_at(r)) for r in records[name]),
            strict=True,
        )
    )
    counts = [len(r.answers[name].latency_ms) for r in result.rounds]
    ends = len(labels) - np.cumsum([0, *counts[::-1]])[::-1]
    spans = [slice(a, b) for a, b in pairwise(ends)]
    return [(labels[s], right[s], exits[s]) for s in spans]


def test_both_systems_get_the_same_inputs_in_order(run):
    result, records, _, _ = run
    rows = len(tiny.data())
    both = zip(*(rounds_of(records, result, name) for name in SYSTEMS), strict=True)
    for measured, (vanilla, early) in zip(result.rounds, both, strict=True):
        expected = (measured.first_input + np.arange(len(vanilla[0]))) % rows % tiny.CLASSES
        np.testing.assert_array_equal(vanilla[0], expected)
        np.testing.assert_array_equal(early[0], expected)
    first, second = result.rounds
    assert second.first_input == (first.first_input + len(first.answers["vanilla"].right)) % rows


def test_both_systems_get_them_at_the_same_times(run):
    result, *_ = run
    for measured in result.rounds:
        vanilla, early = (measured.answers[name].arrived_s for name in SYSTEMS)
        np.testing.assert_allclose(vanilla - vanilla[0], early - early[0], atol=1e-6)
        assert (np.diff(vanilla) > 0).all()
    first, second = (r.answers["vanilla"].arrived_s for r in result.rounds)
    count = min(len(first), len(second))
    assert not np.allclose(np.diff(first[:count]), np.diff(second[:count])), "other rounds differ"


def test_systems_take_turns_in_going_first(run):
    result, _, steps, _ = run
    assert [r.order for r in result.rounds] == [SYSTEMS, SYSTEMS[::-1]]
    phases = list(dict.fromkeys(what for what, _, _ in steps))
    assert phases == [
        "throughput",
        "settling",
        "round 1 of 2, vanilla",
        "round 1 of 2, apparate",
        "round 2 of 2, apparate",
        "round 2 of 2, vanilla",
    ]
    for phase in phases:
        done = [(d, total) for what, d, total in steps if what == phase]
        assert done[-1][0] == done[-1][1]


def test_answers_are_what_the_records_say(run):
    result, records, _, _ = run
    for name in SYSTEMS:
        for measured, (_, right, exits) in zip(
            result.rounds, rounds_of(records, result, name), strict=True
        ):
            answers = measured.answers[name]
            np.testing.assert_array_equal(answers.right, right)
            np.testing.assert_array_equal(answers.exits, exits)
            assert (answers.latency_ms > 0).all()
            assert set(answers.shape) <= {1, 2, 4}
        assert sum(len(r.exits) for r in records[name]) > sum(
            len(r.answers[name].right) for r in result.rounds
        )
    outside = sum(len(r.exits) for r in records["apparate"]) - sum(
        len(r.answers["apparate"].right) for r in result.rounds
    )
    assert len(result.outside.right) == outside


def test_the_original_is_always_right_and_early_answers_leave_early(run):
    result, *_ = run
    vanilla = concatenate([r.answers["vanilla"] for r in result.rounds])
    early = concatenate([r.answers["apparate"] for r in result.rounds])
    assert vanilla.right.all() and (vanilla.exits == 2).all()
    assert (early.exits < 2).any(), "thresholds were tuned before the rounds"
    assert result.decisions.tunings > 0
    assert result.plan.sites == (0, 1) and max(result.plan.thresholds) > 0
    # The first ramp is wrong for one class of sixteen, which this constraint lets it be.
    assert not early.right.all() and (early.exits[~early.right] == 0).all()


def test_the_rate_is_the_stated_share_of_the_throughput(run):
    result, *_ = run
    capacity = np.median([r.throughput_rps["vanilla"] for r in result.rounds])
    assert result.rate_rps == pytest.approx(0.1 * capacity)
    count = max(8, round(result.rate_rps * SHORT.round_s))
    assert {len(r.answers[n].right) for r in result.rounds for n in SYSTEMS} == {count}


def test_engines_and_feedback_have_ended(run):
    *_, left = run
    assert left == set()


def test_the_report_of_a_real_run(run, service):
    result, records, _, _ = run
    report = build_report(Subject.of(service, "rows.npz"), result, SHORT.load_frac, None)
    right = np.concatenate([r.released_right for r in records["apparate"]])
    assert report["apparate"]["agreement"] == round(right.mean(), 5)
    assert report["apparate"]["answers_checked"] == len(right)
    assert sum(report["apparate"]["exit_rates"].values()) == pytest.approx(1.0, abs=1e-3)
    assert report["load_frac"] == 0.1 and report["model"] == "rows"


def test_a_trace_gives_the_times_and_rounds_go_on_along_it(service):
    trace = np.array([0.0, 1.0, 1.5, 4.0, 4.25, 8.0, 9.0, 10.0, 12.0, 20.0])
    config = LiveConfig(load_frac=0.02, rounds=2, round_s=0.05, saturation_s=0.1)
    result = run_live(service, tiny.data(), config, trace=trace)
    scaled = trace * (len(trace) - 1) / trace[-1] / result.rate_rps
    first = 0
    for measured in result.rounds:
        for name in SYSTEMS:
            arrived = measured.answers[name].arrived_s
            expected = stretch(scaled, first, len(arrived))
            np.testing.assert_allclose(arrived - arrived[0], expected, atol=1e-6)
        first += len(arrived)


def test_the_original_runs_twice_where_the_noise_floor_is_asked_for(service):
    config = LiveConfig(load_frac=0.1, rounds=2, round_s=0.2, saturation_s=0.1, noise_floor=True)
    result = run_live(service, tiny.data(), config)
    assert [r.order for r in result.rounds] == [(*SYSTEMS, AGAIN), ("vanilla", AGAIN, "apparate")]
    for measured in result.rounds:
        again, vanilla = measured.answers[AGAIN], measured.answers["vanilla"]
        assert (again.exits == 2).all() and again.right.all()
        times = [np.diff(one.arrived_s) for one in (again, vanilla)]
        np.testing.assert_allclose(*times, atol=1e-6, err_msg="the same arrivals")


def test_an_input_without_an_answer_ends_it(service):
    x = np.array(tiny.data().inputs[0])
    x[-1, 0] = np.nan
    before = threads()
    with pytest.raises(NumericsError, match="logits for this input are not finite"):
        run_live(service, tiny.data(x=x), SHORT)
    assert threads() <= before


def test_no_data_at_all(service):
    before = threads()
    with pytest.raises(DataError, match="no rows"):
        run_live(service, tiny.data(rows=0), SHORT)
    assert threads() <= before


def test_falling_behind_is_said(service):
    hurried = service._replace(config=tiny.config(queue_size=40))
    config = LiveConfig(load_frac=4.0, rounds=1, round_s=1.0, saturation_s=0.15)
    with pytest.raises(QueueFullError, match="vanilla falls behind the arrivals at 400% load"):
        run_live(hurried, tiny.data(), config)


def test_too_short_for_a_throughput():
    made = prepare(tiny.checkpoint(), tiny.config(batch_sizes=(64,)))
    try:
        with pytest.raises(ConfigError, match="too short for two batches of this model"):
            run_live(made, tiny.data(), LiveConfig(rounds=1, saturation_s=1e-6))
    finally:
        made.programs.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"load_frac": 0.0}, "load_frac is 0"),
        ({"load_frac": 4.1}, "load_frac is 4.1, expected above 0 and at most 4"),
        ({"load_frac": float("nan")}, "load_frac is nan"),
        ({"rate_rps": -1.0}, "rate_rps is -1.0, expected a number above 0, or none"),
        ({"rounds": 0}, "rounds 0"),
        ({"outstanding": 0}, "outstanding 0"),
        ({"round_s": 0.0}, "round_s 0"),
        ({"saturation_s": -1.0}, "saturation_s -1"),
        ({"arrivals": "bursts"}, r"arrivals are 'bursts', expected one of \['poisson', 'fixed'\]"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        LiveConfig(**settings)
