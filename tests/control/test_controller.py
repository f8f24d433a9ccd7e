"""The controller: invariants after every step, on random and on adversarial streams."""

import copy
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from apparate_jax.control.controller import (
    ControlConfig,
    Controller,
    Observation,
    State,
    make_controller,
    observe,
)
from apparate_jax.control.thresholds import budget_for, evaluate_thresholds, first_exits
from apparate_jax.core import BatchRecord, ExitPlan
from apparate_jax.errors import ConfigError

SITES = (2, 5)
SAVINGS = (6.0, 2.0)
CONFIG = ControlConfig(
    accuracy=0.9, window=32, tune_every=8, min_samples=16, cooldown=4, budget_frac=1.0
)


class Batch(NamedTuple):
    """What the ramps say to some inputs, whoever leaves where."""

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]


def batch(n: int, error: float, right: bool = True) -> Batch:
    return Batch(np.full((n, 2), error, np.float32), np.full((n, 2), right))


def released(plan: ExitPlan, given_batch: Batch) -> Observation:
    """The observation of a batch that the plan released."""
    exits = first_exits(given_batch.errors, plan.thresholds).astype(np.int32)
    return Observation(plan.sites, *given_batch, exits)


def warmed(controller: Controller, config: ControlConfig = CONFIG) -> State:
    """The state after quiet samples that open both ramps up to any error."""
    state = controller.init()
    _, state, info = controller.update(state, released(state.plan, batch(config.min_samples, 0.2)))
    assert info.tuning is not None
    assert state.thresholds == (1.0, 1.0)
    return state


def assert_same(left: object, right: object) -> None:
    leaves = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    for a, b in leaves:
        np.testing.assert_array_equal(a, b)


class Ledger:
    """The rule of the stop, in the plainest words, beside the controller's own bookkeeping."""

    def __init__(self, config: ControlConfig) -> None:
        self.config = config
        self.since = 0
        self.exits: list[tuple[int, bool]] = []

    def violators(self, before: State, seen: Observation) -> set[int]:
        """Record a batch; the ramps that must be closed now."""
        self.since += len(seen.exits)
        for errors, agrees, exit_ in zip(seen.errors, seen.agrees, seen.exits, strict=True):
            today = next((r for r in range(2) if errors[r] < np.float32(before.thresholds[r])), 2)
            if exit_ < 2 and exit_ == today:
                self.exits.append((int(exit_), bool(agrees[exit_])))
        share = 1.0 - self.config.accuracy
        allowed = int(np.ceil(share * max(self.since, self.config.tune_every) - 1e-9))
        if sum(not ok for _, ok in self.exits) <= allowed:
            return set()
        wrong = {r: sum(e == r and not ok for e, ok in self.exits) for r in range(2)}
        count = {r: sum(e == r for e, _ in self.exits) for r in range(2)}
        return {r for r in range(2) if wrong[r] > share * count[r]}

    def closed(self, ramps: set[int]) -> None:
        self.exits = [(e, ok) for e, ok in self.exits if e not in ramps]

    def tuned(self) -> None:
        self.since, self.exits = 0, []


@st.composite
def streams(draw: st.DrawFn) -> list[Batch]:
    """Batches of changing sizes from regimes in which ramps are good, bad, or sure and wrong."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts = draw(
        st.lists(
            st.tuples(
                st.integers(0, 9),
                st.sampled_from([0.0, 0.05, 0.3, 1.0]),
                st.sampled_from([0.0, 0.05, 0.5]),
            ),
            min_size=4,
            max_size=20,
        )
    )
    batches = []
    for n, wrong, spread in parts:
        errors = np.clip(rng.normal(0.1, spread, (n, 2)), 0, 0.5).astype(np.float32)
        errors[rng.random((n, 2)) < 0.05] = np.nan
        batches.append(Batch(errors, rng.random((n, 2)) >= wrong))
    return batches


def check_step(
    config: ControlConfig, before: State, seen: Observation, after: State, total: int
) -> None:
    assert all(0.0 <= t <= 1.0 for t in after.thresholds)
    assert after.window.filled == min(total, config.window)
    if total < config.min_samples:
        assert after.thresholds == (0.0, 0.0)
    changed = after.thresholds != before.thresholds
    assert not changed or len(seen.exits) > 0


@settings(max_examples=150, deadline=None)
@given(
    streams(),
    st.sampled_from([CONFIG, replace(CONFIG, budget_frac=0.5, accuracy=0.95)]),
    st.integers(0, 2),
)
def test_invariants_after_every_step(stream: list[Batch], config: ControlConfig, delay: int):
    controller = make_controller(config, SITES, SAVINGS)
    state = controller.init()
    ledger, total = Ledger(config), 0
    in_flight = [released(state.plan, b) for b in stream[:delay]]
    for given_batch in stream[delay:]:
        in_flight.append(released(state.plan, given_batch))
        seen = in_flight.pop(0)
        frozen = copy.deepcopy((state, seen))
        plan, after, info = controller.update(state, seen)
        total += len(seen.exits)

        assert plan == after.plan
        assert plan.sites == SITES
        check_step(config, state, seen, after, total)

        must_stop = ledger.violators(state, seen)
        assert set(info.stopped) == must_stop
        assert all(plan.thresholds[r] == 0.0 for r in must_stop)
        ledger.closed(must_stop)
        if must_stop:
            assert info.tuning is None
            assert after.due_in == config.cooldown
        if info.tuning is not None:
            ledger.tuned()
            rows = slice(after.window.filled)
            done = evaluate_thresholds(
                after.window.errors[rows], after.window.agrees[rows], SAVINGS, plan.thresholds
            )
            limit = budget_for(config.tuned_disagreement, after.window.filled)
            assert round(done.disagreement * after.window.filled) <= limit
            assert done.saving == info.tuning.saving

        again = controller.update(state, seen)
        assert_same(again, (plan, after, info))
        assert again[0] == plan
        assert_same((state, seen), frozen)
        state = after


def test_nothing_exits_before_the_first_tuning():
    controller = make_controller(CONFIG, SITES, SAVINGS)
    state = controller.init()
    for _ in range(CONFIG.min_samples - 1):
        plan, state, info = controller.update(state, released(state.plan, batch(1, 0.0)))
        assert plan == ExitPlan.closed(SITES)
        assert info.tuning is None
    plan, state, info = controller.update(state, released(state.plan, batch(1, 0.0)))
    assert info.tuning is not None
    assert plan.thresholds == (1.0, 1.0)


def test_tunes_every_so_many_samples():
    controller = make_controller(CONFIG, SITES, SAVINGS)
    state = warmed(controller)
    tuned = []
    for _ in range(8):
        _, state, info = controller.update(state, released(state.plan, batch(2, 0.1)))
        tuned.append(info.tuning is not None)
    assert tuned == [False, False, False, True] * 2


def test_a_violating_ramp_stops_in_the_same_decision_and_comes_back():
    controller = make_controller(CONFIG, SITES, SAVINGS)
    state = warmed(controller)

    # one wrong of 8 is what 10 % allows, rounded up
    plan, state, info = controller.update(state, released(state.plan, batch(1, 0.1, right=False)))
    assert info.stopped == ()
    assert plan.thresholds == (1.0, 1.0)

    plan, state, info = controller.update(state, released(state.plan, batch(2, 0.1, right=False)))
    assert info.stopped == (0,)
    assert info.events == ("ramp 0 (site 2) stopped: 3 wrong of 3 exits",)
    assert plan.thresholds == (0.0, 1.0)

    # the next tuning, after the cooldown, lets out only what is surer than the wrong ones
    for _ in range(CONFIG.cooldown - 1):
        _, state, info = controller.update(state, released(state.plan, batch(1, 0.05)))
        assert info.tuning is None
        assert state.thresholds[0] == 0.0
    plan, state, info = controller.update(state, released(state.plan, batch(1, 0.05)))
    assert info.tuning is not None
    assert plan.thresholds[0] == np.float32(0.1)
    for _ in range(10):
        plan, state, info = controller.update(state, released(state.plan, batch(1, 0.05)))
        assert info.stopped == ()


def test_answers_in_flight_do_not_stop_a_ramp_twice():
    controller = make_controller(CONFIG, SITES, SAVINGS)
    state = warmed(controller)
    bad = released(state.plan, batch(3, 0.1, right=False))
    plan, state, info = controller.update(state, bad)
    assert info.stopped == (0,)
    _, state, info = controller.update(state, bad)  # it left before the stop was known
    assert info.stopped == ()
    assert state.thresholds == plan.thresholds


def test_only_the_ramps_that_were_wrong_stop():
    controller = make_controller(CONFIG, SITES, SAVINGS)
    state = warmed(controller)
    state = state._replace(thresholds=(0.1, 0.4), due_in=100)
    late = Batch(np.tile(np.float32([0.3, 0.2]), (3, 1)), np.zeros((3, 2), bool))
    _, state, _ = controller.update(state, released(state.plan, batch(4, 0.05)))
    plan, _, info = controller.update(state, released(state.plan, late))
    assert info.stopped == (1,)
    assert plan.thresholds == (0.1, 0.0)


def test_wrong_answers_that_were_not_released_stop_nothing():
    controller = make_controller(CONFIG, SITES, SAVINGS)
    state = warmed(controller)
    waited = released(ExitPlan.closed(SITES), batch(7, 0.1, right=False))
    _, state, info = controller.update(state, waited)
    assert info.stopped == ()
    assert state.wrong.tolist() == [0, 0]


def test_observing_alone_never_tunes():
    state = make_controller(CONFIG, SITES, SAVINGS).init()
    for _ in range(10):
        state, info = observe(CONFIG, state, released(state.plan, batch(8, 0.1)))
        assert info.tuning is None
    assert state.due_in < 0
    assert state.thresholds == (0.0, 0.0)


def test_perfect_accuracy_stops_at_the_first_wrong_answer():
    config = replace(CONFIG, accuracy=1.0)
    controller = make_controller(config, SITES, SAVINGS)
    state = warmed(controller, config)
    _, _, info = controller.update(state, released(state.plan, batch(1, 0.1, right=False)))
    assert info.stopped == (0,)


def test_greedy_is_a_setting():
    controller = make_controller(replace(CONFIG, method="greedy"), SITES, SAVINGS)
    state = controller.init()
    plan, _, _ = controller.update(state, released(state.plan, batch(16, 0.05)))
    assert plan.thresholds[0] > 0.05


def test_without_ramps_there_is_nothing_to_decide():
    controller = make_controller(CONFIG, (), ())
    empty = np.zeros((40, 0), np.float32)
    seen = Observation((), empty, empty.astype(bool), np.zeros(40, np.int32))
    plan, state, info = controller.update(controller.init(), seen)
    assert plan == ExitPlan()
    assert info.tuning is None
    assert state.window.filled == CONFIG.window


def test_reads_a_batch_record():
    record = BatchRecord(
        sites=SITES,
        shape=4,
        arrived_s=np.zeros(2),
        dispatched_s=0.0,
        released_s=np.ones(2),
        finished_s=1.0,
        exits=np.array([0, 2], np.int32),
        errors=np.array([[0.1, 0.2], [0.3, 0.4]], np.float32),
        predictions=np.array([[1, 0], [1, 1]], np.int32),
        final_predictions=np.array([1, 0], np.int32),
    )
    seen = Observation.of(record)
    assert seen.sites == SITES
    assert seen.agrees.tolist() == [[True, False], [False, False]]
    assert seen.exits.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": (2, 6)}, r"sites \(2, 6\), but the controller's are \(2, 5\)"),
        ({"errors": np.full((3, 2), 1.5, np.float32)}, "1 - top probability"),
        ({"errors": np.zeros((3, 1), np.float32)}, r"expected \[n, 2\]"),
        ({"exits": np.full(3, 3, np.int32)}, r"exits are 3..3, expected positions 0..2"),
        ({"exits": np.zeros(4, np.int32)}, r"expected \[n, 2\]"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(change: dict, message: str):
    controller = make_controller(CONFIG, SITES, SAVINGS)
    state = controller.init()
    with pytest.raises(ConfigError, match=message):
        controller.update(state, released(state.plan, batch(3, 0.1))._replace(**change))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("accuracy", 1.01),
        ("accuracy", float("nan")),
        ("budget_frac", -0.1),
        ("window", 0),
        ("tune_every", 0),
        ("min_samples", 5000),
        ("cooldown", 0),
        ("method", "grid"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: object):
    with pytest.raises(ConfigError, match="expected"):
        ControlConfig(**{setting: value})


@pytest.mark.parametrize("savings", [(1.0,), (1.0, 2.0), (1.0, -1.0)])
def test_savings_that_do_not_fit_are_refused(savings: tuple[float, ...]):
    with pytest.raises(ConfigError, match="savings"):
        make_controller(CONFIG, SITES, savings)
