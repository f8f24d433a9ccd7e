"""The table of systems: what each is allowed to see, and what they do on the same arrivals."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.bench.baselines import SYSTEMS, check_names, policy_of, task_of
from apparate_jax.bench.compare import compare, names_for, play, prepare
from apparate_jax.bench.replay import ReplayConfig, replay
from apparate_jax.bench.replayed import ReplayedConfig
from apparate_jax.bench.two_layer import prefix_of
from apparate_jax.control import ControlConfig
from apparate_jax.control.interface import fixed
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError, DataError
from tests.bench import tiny

CONTROL = ControlConfig(accuracy=0.9, window=256, tune_every=32, shadow_window=256, min_shadow=64)
CONFIG = ReplayedConfig(load_frac=0.05, arrivals="fixed", requests=500, settle=100, saturated=400)


def recorded(rows=600):
    made = tiny.recording(rows)
    return replace(made, entropies=np.sqrt(made.errors))


@pytest.fixture(scope="module")
def match():
    made = recorded()
    return prepare(task_of(made, CONTROL, small=prefix_of(made, 0)), CONFIG)


@pytest.fixture(scope="module")
def played(match):
    return {name: play(name, match) for name in SYSTEMS}


def test_vanilla_is_the_replay_of_an_empty_plan(match):
    stream = match.task.ours.stream
    alone = replay(stream, fixed(ExitPlan()), match.times, ReplayConfig()).answers
    given = play("vanilla", match).answers
    for one, other in zip(given, alone, strict=True):
        np.testing.assert_array_equal(one, other)
    assert given.right.all()


def test_a_right_answer_is_never_earlier_than_the_oracles(played):
    """At a load without waiting, where only the exit decides."""
    oracle = played["oracle"].answers.latency_ms
    for name in SYSTEMS:
        if name != "two-layer":
            answers = played[name].answers
            early = answers.latency_ms < oracle - 1e-6
            assert not (early & answers.right).any(), name


def test_a_recording_whose_budget_allowed_no_ramp_at_the_start_has_every_row():
    made = recorded()
    bare = [replace(shape, release_ms=()) for shape in made.profile.shapes]
    made = replace(made, profile=replace(made.profile, sites=(), shapes=tuple(bare)))
    match = prepare(task_of(made, CONTROL, small=prefix_of(made, 0)), CONFIG)
    rows = {row["system"]: row for row in compare(tuple(SYSTEMS), match)}
    for name in ("initial-only", "uniform", "past-20"):
        assert (rows[name]["agreement"], rows[name]["p50_saved_frac"]) == (1.0, 0.0)


def test_every_system_has_a_row_of_figures(match):
    rows = compare(tuple(SYSTEMS), match)
    assert [row["system"] for row in rows] == list(SYSTEMS)
    assert rows[0]["p50_saved_frac"] == 0.0 and rows[0]["throughput_ratio"] == 1.0
    for row in rows:
        assert 0 <= row["agreement"] <= 1 and 0 <= row["early_frac"] <= 1
        assert row["disagreement"] == pytest.approx(1 - row["agreement"], abs=1e-9)


def test_tuned_on_the_test_data_keeps_the_constraint_there(match):
    for name in ("branchynet-opt", "deebert-opt"):
        policy = policy_of(name, match.task)
        plan = policy.controller.plan(policy.controller.init())
        assert plan.sites == match.task.ours.stream.ramps
        exits = (policy.recording.errors < np.float32(plan.thresholds)).argmax(axis=1)
        early = (policy.recording.errors < np.float32(plan.thresholds)).any(axis=1)
        wrong = ~policy.recording.agrees[np.arange(len(exits)), exits] & early
        assert wrong.mean() <= 0.1


def test_deebert_leaves_by_entropy_and_by_its_own_ramps(match):
    given = policy_of("deebert", match.task).recording
    stream = match.task.ours.stream
    np.testing.assert_array_equal(given.errors, stream.entropies)
    heavy = replace(recorded(), entropies=np.square(recorded().errors))
    task = task_of(recorded(), CONTROL, heavy=heavy)
    np.testing.assert_array_equal(
        policy_of("deebert", task).recording.errors, heavy.errors[60:] ** 2
    )
    with pytest.raises(DataError, match="of other rows, or of another model"):
        task_of(recorded(), heavy=recorded(500))


def test_what_is_tuned_on_is_not_measured():
    task = task_of(recorded(), CONTROL)
    assert (len(task.ours.sample), len(task.ours.stream)) == (60, 540)
    rows = np.array([100, 100, 70])
    drawn = task_of(recorded(), rows=rows, small=prefix_of(recorded(), 1))
    np.testing.assert_array_equal(drawn.ours.stream.errors, recorded().errors[rows])
    np.testing.assert_array_equal(drawn.small[1].errors, recorded().errors[rows, 1])


def test_names(match):
    assert names_for(match.task) == tuple(SYSTEMS)
    plain = task_of(tiny.recording(100))
    assert not {"two-layer", "deebert"} & set(names_for(plain))
    with pytest.raises(ConfigError, match=r"\['branchy'\] are unknown, expected .*branchynet-opt"):
        check_names(["vanilla", "branchy"])
    with pytest.raises(ConfigError, match="oracle has no controller"):
        policy_of("oracle", match.task)
    bare = prepare(task_of(tiny.recording(100)), CONFIG)
    with pytest.raises(ConfigError, match="two-layer needs a small model"):
        play("two-layer", bare)
