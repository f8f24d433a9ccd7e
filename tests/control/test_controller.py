"""The controller: what it promises holds on any stream, and every decision follows its parts."""

import copy
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from apparate_jax.control import guard, ladder
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.controller import State, make_controller, observe, savings_and_cost
from apparate_jax.control.interface import Controller, Observation, Shadow
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import EAGER
from apparate_jax.control.thresholds import first_exits
from apparate_jax.core import ExitPlan, Profile, ShapeProfile
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.ramps.train import Validation

SITES = (1, 2)
TRAINED = (0, 1, 2, 3)
CONFIG = ControlConfig(
    accuracy=0.9, policy="fixed", window=64, tune_every=8, cooldown=4, shadow_window=256
)
FREE = PlacementConfig(ramp_budget=10.0)


def profile() -> Profile:
    shapes = tuple(
        ShapeProfile(
            b, 10.0 * b, 10.2 * b, (4.0 * b, 7.0 * b), (2.0, 4.0, 6.0, 8.0), (0.1,) * 4, 2.0
        )
        for b in (1, 4)
    )
    return Profile("test", "0", SITES, shapes)


LATENCY = LatencyModel(profile())


def held_out(samples: int, error: float = 0.2, right: bool = True) -> Validation:
    labels = np.zeros(samples, np.int32)
    answers = np.full((samples, len(TRAINED)), 0 if right else 1, np.int32)
    errors = np.full((samples, len(TRAINED)), error, np.float32)
    return Validation(TRAINED, np.arange(samples), errors, answers, labels)


def make(config: ControlConfig = CONFIG, samples: int = 64) -> Controller:
    return make_controller(config, SITES, LATENCY, validation=held_out(samples), placement=FREE)


def batch(n: int, error: float, right: bool = True) -> tuple[NDArray, NDArray]:
    return np.full((n, 2), error, np.float32), np.full((n, 2), right)


def released(plan: ExitPlan, errors: NDArray, agrees: NDArray) -> Observation:
    """The observation of a batch that the plan released, its cap left aside."""
    exits = first_exits(errors, plan.thresholds).astype(np.int32)
    return Observation(plan.sites, errors, agrees, exits, 4)


def stay(n: int, plan: ExitPlan) -> Observation:
    """A batch of which nobody left early."""
    ramps = len(plan.sites)
    return Observation(
        plan.sites,
        np.full((n, ramps), 0.9, np.float32),
        np.ones((n, ramps), bool),
        np.full(n, ramps, np.int32),
        4,
    )


def assert_same(left: object, right: object) -> None:
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["long-run", "window"]),
    st.integers(0, 2),
    st.lists(
        st.tuples(
            st.integers(1, 9), st.sampled_from([0.0, 0.05, 0.3, 1.0]), st.sampled_from([0.0, 0.2])
        ),
        min_size=4,
        max_size=40,
    ),
    st.integers(0, 2**32 - 1),
)
def test_the_constraint_holds_on_any_stream(promise, delay, parts, seed):
    """A server that obeys the plans, late feedback, ramps that go bad and recover at will."""
    config, rng = replace(CONFIG, promise=promise), np.random.default_rng(seed)
    controller = make(config)
    state = controller.init()
    plan, exits, under_way, order = controller.plan(state), 0, [], []
    for n, wrong, spread in parts * 3:
        errors = np.clip(rng.normal(0.15, spread, (n, 2)), 0, 0.9).astype(np.float32)
        errors[rng.random((n, 2)) < 0.05] = np.nan
        agrees = rng.random((n, 2)) >= wrong
        seen = released(plan, errors, agrees)
        assert plan.exit_cap is not None
        for row in np.flatnonzero(seen.exits < 2):
            if exits < plan.exit_cap:
                exits += 1
            else:
                seen.exits[row] = 2
        under_way.append(seen)
        right = np.append(seen.agrees, np.ones((n, 1), bool), axis=1)
        order += right[np.arange(n), seen.exits].tolist()
        checked = len(order) - sum(len(b.exits) for b in under_way)
        most = 0.1 * (checked + 512 * max(0.0, 1 - checked / 2048))
        assert order.count(False) <= most + 1e-6
        if len(under_way) > delay:
            late = under_way.pop(0)
            frozen = copy.deepcopy((state, late))
            plan, after, info = controller.update(state, late)
            assert plan == controller.plan(after) and plan.sites == SITES
            assert all(plan.thresholds[r] == 0.0 for r in info.stopped)
            assert_same(controller.update(state, late), (plan, after, info))
            assert_same((state, late), frozen)
            state = after


def test_held_out_samples_open_ramps_from_the_start():
    plan = make().plan(make().init())
    assert plan.sites == SITES and min(plan.thresholds) > 0.2
    assert plan.exit_cap == int(0.1 * 512)
    assert plan.shadow_every == 0, "the set is fixed"


def test_without_them_nothing_exits_until_enough_was_seen():
    controller = make_controller(CONFIG, SITES, LATENCY)
    state = controller.init()
    assert controller.plan(state).thresholds == (0.0, 0.0)
    seen = 0
    while max(controller.plan(state).thresholds) == 0.0:
        _, state, _ = controller.update(state, released(controller.plan(state), *batch(4, 0.1)))
        seen += 4
        assert seen < 64
    assert seen >= 8  # one wrong answer in 10 cannot be excluded before


def test_tunes_every_so_many_samples():
    controller = make()
    state = controller.init()
    tuned = []
    for _ in range(8):
        _, state, info = controller.update(state, released(controller.plan(state), *batch(2, 0.1)))
        tuned.append(info.tuning is not None)
    assert tuned == [False, False, False, True] * 2


def test_the_step_follows_the_level_without_tuning():
    controller = make(replace(CONFIG, tune_every=64))
    state = controller.init()
    steps = [state.step]
    errors = np.tile(np.float32([0.1, 0.9]), (1, 1))
    for _ in range(3):
        wrong = Observation(SITES, errors, np.zeros((1, 2), bool), np.zeros(1, np.int32), 1)
        _, state, info = controller.update(state, wrong)
        assert info.tuning is None
        assert state.step == ladder.step_for(state.ladder, guard.level(state.guard))
        steps.append(state.step)
    assert steps == sorted(steps, reverse=True)


def bad_ramp(controller: Controller) -> tuple[State, tuple[int, ...], list[str]]:
    """The state after ramp 0 was wrong again and again while ramp 1 was right."""
    state = controller.init()
    for _ in range(60):
        errors = np.float32([[0.1, 0.9], [0.9, 0.1]])
        agrees = np.array([[False, True], [True, True]])
        seen = Observation(SITES, errors, agrees, np.int32([0, 1]), 4)
        plan, state, info = controller.update(state, seen)
        if info.stopped:
            assert plan.thresholds[0] == 0.0
            return state, info.stopped, list(info.events)
    raise AssertionError("it never stopped")


def test_a_ramp_that_goes_bad_stops_in_that_very_decision_and_the_past_is_forgotten():
    controller = make(replace(CONFIG, tune_every=64))
    state, stopped, events = bad_ramp(controller)
    assert stopped == (0,)
    assert events[0].startswith("ramp at site 1 stopped: more wrong exits in the last")
    assert state.window.filled < 64, "only what came since is kept"
    assert state.due_in == CONFIG.cooldown
    assert state.open == (False, True)


def test_it_stays_closed_until_a_tuning_on_what_came_since():
    controller = make(replace(CONFIG, tune_every=64))
    state, _, _ = bad_ramp(controller)
    for _ in range(CONFIG.cooldown - 1):
        plan, state, info = controller.update(state, stay(1, controller.plan(state)))
        assert info.tuning is None and plan.thresholds[0] == 0.0
    plan, state, info = controller.update(state, stay(1, controller.plan(state)))
    assert info.tuning is not None
    assert state.open == (True, True)
    assert plan.thresholds[0] <= np.float32(0.1), "the error of its wrong answers"


def test_a_batch_of_other_ramps_counts_for_the_guard_only():
    controller = make()
    before = controller.init()
    other = Observation(
        (2,), np.full((3, 1), 0.1, np.float32), np.zeros((3, 1), bool), np.int32([0, 0, 1]), 4
    )
    _, after, _ = controller.update(before, other)
    assert after.guard.answers == 3 and after.guard.wrong == 2 and after.guard.exits == 2
    assert_same(after.window, before.window)
    assert after.drift == before.drift


def test_the_single_program_counts_as_right_answers():
    controller = make()
    _, state, _ = controller.update(controller.init(), stay(8, ExitPlan()))
    assert (state.guard.answers, state.guard.wrong, state.guard.exits) == (8, 0, 0)


def test_early_answers_that_cannot_be_checked_count_as_wrong():
    controller = make()
    seen = released(controller.plan(controller.init()), *batch(2, 0.1))._replace(lost=1)
    _, state, _ = controller.update(controller.init(), seen)
    assert (state.guard.answers, state.guard.wrong, state.guard.exits) == (3, 1, 3)


def test_observing_alone_never_tunes():
    state = make().init()
    for _ in range(10):
        state, info = observe(CONFIG, state, released(make().plan(state), *batch(8, 0.1)))
        assert info.tuning is None
    assert state.due_in < 0


def test_perfect_accuracy_lets_nobody_out():
    controller = make(replace(CONFIG, accuracy=1.0))
    plan = controller.plan(controller.init())
    assert plan.thresholds == (0.0, 0.0) and plan.exit_cap == 0


def test_no_promise_tunes_to_the_constraint_and_has_no_cap():
    plan = make(replace(CONFIG, promise="none")).plan(make().init())
    controller = make(replace(CONFIG, promise="none"))
    plan = controller.plan(controller.init())
    assert plan.exit_cap is None and min(plan.thresholds) > 0.2


@pytest.mark.parametrize("method", ["greedy", "beam", "auto"])
def test_the_search_is_a_setting(method):
    controller = make(replace(CONFIG, method=method))
    assert max(controller.plan(controller.init()).thresholds) > 0.1


def test_without_ramps_there_is_nothing_to_decide():
    controller = make_controller(CONFIG, (), LATENCY)
    plan, _, info = controller.update(controller.init(), stay(40, ExitPlan()))
    assert plan == ExitPlan(exit_cap=plan.exit_cap)
    assert info.tuning is None


def test_savings_and_costs_are_those_of_the_batch_shapes_that_were_seen():
    controller = make()
    state = controller.init()
    savings, added_ms = savings_and_cost(LATENCY, SITES, state.window)
    np.testing.assert_allclose(savings, LATENCY.savings_ms(SITES, 1), rtol=1e-6)
    assert added_ms == state.added_ms == pytest.approx(0.2)
    seen = released(controller.plan(state), *batch(64, 0.1))
    plan, state, _ = controller.update(state, seen)
    savings, added_ms = savings_and_cost(LATENCY, SITES, state.window)
    np.testing.assert_allclose(savings, LATENCY.savings_ms(SITES, 4), rtol=1e-6)
    assert added_ms == state.added_ms == pytest.approx(0.8)
    assert plan.worth == pytest.approx(state.ladder.savings_ms[state.step] / 0.8)


def shadowed(plan: ExitPlan, rng: np.random.Generator, n: int = 4) -> Observation:
    """A shadow batch in which only the first ramp's answers are early and right."""
    errors = np.full((n, 4), 0.6, np.float32)
    errors[:, 0] = rng.uniform(0.0, 0.1, n)
    agrees = np.ones((n, 4), bool)
    columns = list(plan.sites)
    exits = first_exits(errors[:, columns], plan.thresholds).astype(np.int32)
    shadow = Shadow(TRAINED, errors, agrees)
    return Observation(plan.sites, errors[:, columns], agrees[:, columns], exits, 4, 0, shadow)


def test_shadow_batches_bring_in_a_better_set():
    config = replace(CONFIG, policy="exact", adjust_every=64, min_shadow=64)
    controller = make_controller(
        config, SITES, LATENCY, validation=held_out(16, 0.6, right=False), placement=FREE
    )
    state, rng = controller.init(), np.random.default_rng(0)
    assert controller.plan(state).shadow_every == EAGER, "16 samples are known, 64 wanted"
    changes = []
    for _ in range(64):
        before = controller.plan(state)
        plan, state, info = controller.update(state, shadowed(before, rng))
        if plan.sites != before.sites:
            changes.append((plan, info.events))
    assert len(changes) == 1, "and it does not flap"
    plan, events = changes[0]
    assert 0 in plan.sites
    assert plan.thresholds[plan.sites.index(0)] > 0.05, "what shadow batches said opens it at once"
    assert any("give way to" in event for event in events)
    assert controller.plan(state).shadow_every == config.shadow_every


def test_a_set_that_is_no_better_does_not_take_over():
    config = replace(CONFIG, policy="exact", adjust_every=64, min_shadow=64)
    controller = make_controller(
        config, SITES, LATENCY, validation=held_out(64), placement=PlacementConfig(ramp_budget=0.0)
    )
    state, rng = controller.init(), np.random.default_rng(0)
    for _ in range(64):
        plan, state, _ = controller.update(state, shadowed(controller.plan(state), rng))
        assert plan.sites == SITES, "no other set is within a ramp budget of nothing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"errors": np.zeros((3, 1), np.float32)}, r"of 2 ramps, expected \[3, 2\]"),
        ({"exits": np.full(3, 3, np.int32)}, r"exits are 3..3, expected positions 0..2"),
        ({"exits": np.zeros(4, np.int32)}, r"expected \[4, 2\]"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(change: dict, message: str):
    controller = make()
    seen = released(controller.plan(controller.init()), *batch(3, 0.1))._replace(**change)
    with pytest.raises(ConfigError, match=message):
        controller.update(controller.init(), seen)


def test_active_sites_without_a_ramp_are_refused():
    with pytest.raises(ConfigError, match="trained ramps are at"):
        make_controller(CONFIG, (1, 7), LATENCY, validation=held_out(4))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("accuracy", 1.01),
        ("accuracy", float("nan")),
        ("window", 0),
        ("tune_every", 0),
        ("cooldown", 0),
        ("unchecked_batches", 0),
        ("method", "newton"),
        ("promise", "all"),
        ("policy", "none"),
        ("hysteresis", -1.0),
        ("shadow_every", -1),
        ("min_shadow", 5000),
        ("adjust_every", 0),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: object):
    with pytest.raises(ConfigError, match="expected"):
        ControlConfig(**{setting: value})


@pytest.mark.parametrize(
    ("accuracy", "samples"), [(0.99, 4096), (0.999, 4096), (0.95, 820), (0.8, 205), (1.0, 4096)]
)
def test_a_window_holds_enough_wrong_answers_and_no_more(accuracy: float, samples: int):
    assert ControlConfig(accuracy=accuracy).samples == pytest.approx(samples, abs=5)


def test_nothing_is_compiled_once_it_is_made(caplog):
    """A choice of a set of another size, and its first tunings, run what was compiled before."""
    config = replace(CONFIG, policy="exact", adjust_every=32, min_shadow=32)
    controller = make_controller(
        config, SITES, LATENCY, validation=held_out(16, 0.6, right=False), placement=FREE
    )
    state, rng, sizes = controller.init(), np.random.default_rng(0), set()
    with jax.log_compiles():
        for _ in range(64):
            plan, state, _ = controller.update(state, shadowed(controller.plan(state), rng))
            sizes.add(len(plan.sites))
    assert len(sizes) > 1
    assert [r.message for r in caplog.records if "Compiling" in r.message] == []
