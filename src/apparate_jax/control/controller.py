"""The controller: from what was observed to the thresholds in force. A pure function.

``init() -> State`` and ``update(state, observation) -> (plan, state, info)``: no clock, no threads,
no randomness, so that the live engine, a replay and the tests drive the same code. Further policies
(a guard, adjustment of the active set) wrap a controller and are controllers themselves.

Every input runs to the original model's answer, so each completed batch is full feedback.
Thresholds start at 0 and stay there for ``min_samples``, then they are tuned on the window every
``tune_every`` samples. Between tunings the wrong answers that were released are counted. Once they
are more than the constraint allows in ``tune_every`` samples, every ramp with a larger share of
wrong exits than the constraint allows **stops in that very decision**: its threshold is 0. Tuning,
which may open it again, follows ``cooldown`` samples later, with those in the window. Counts start
anew with every tuning, and only answers that the thresholds in force would let out again count, so
the past does not stop a ramp twice.

Sharp edges: the first tuning compiles the exact search, so :func:`make_controller` does it ahead.
An observation belongs to the controller's own sites; what is still in flight of another set has to
be left out by the caller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control import window as windows
from apparate_jax.control.thresholds import (
    METHODS,
    Method,
    Tuning,
    budget_for,
    check_savings,
    first_exits,
    tune_first,
)
from apparate_jax.core import BatchRecord, ExitPlan
from apparate_jax.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """Settings of the controller.

    Attributes:
        accuracy: Share of answers that must equal the original model's.
        window: Samples that thresholds are tuned on.
        tune_every: Samples between tunings.
        min_samples: Samples before the first tuning; nothing exits until then.
        cooldown: Samples between a ramp's stop and the tuning that may open it again.
        budget_frac: Share of the allowed wrong answers that tuning may spend on the window. What is
            tuned to the limit on one window is too bold on the next.
        method: Threshold search.
    """

    accuracy: float = 0.99
    window: int = 2048
    tune_every: int = 128
    min_samples: int = 256
    cooldown: int = 32
    budget_frac: float = 0.5
    method: Method = "exact"

    def __post_init__(self) -> None:
        for name in ("accuracy", "budget_frac"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} is {value}, expected a share, 0..1")
        for name in ("tune_every", "min_samples", "cooldown"):
            value = getattr(self, name)
            if not 1 <= value <= self.window:
                raise ConfigError(
                    f"{name} is {value}, expected 1 to the window's {self.window} samples"
                )
        if self.method not in METHODS:
            raise ConfigError(f"method is {self.method!r}, expected one of {list(METHODS)}")

    @property
    def max_disagreement(self) -> float:
        """Share of answers that may differ from the original's."""
        return 1.0 - self.accuracy

    @property
    def tuned_disagreement(self) -> float:
        """Share of the window's answers that may differ when thresholds are tuned."""
        return self.budget_frac * self.max_disagreement


class Observation(NamedTuple):
    """Feedback of one completed batch of ``n`` inputs.

    Attributes:
        sites: The R active sites that it ran with.
        errors: f32[n, R], 0..1, or NaN where a ramp has no answer.
        agrees: bool[n, R], whether the ramp's answer is the original's.
        exits: i32[n], position of the ramp that answered, R for the original model.
    """

    sites: tuple[int, ...]
    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    exits: NDArray[np.int32]

    @staticmethod
    def of(record: BatchRecord) -> "Observation":
        """What a batch's record says."""
        return Observation(record.sites, record.errors, record.agrees, record.exits)


class State(NamedTuple):
    """What the controller remembers; a pytree.

    Attributes:
        sites: Active sites, R of them.
        window: Feedback of the last samples.
        thresholds: In force, one per active ramp.
        since: Samples since the last tuning.
        due_in: Samples until the next tuning.
        exits: i64[R], exits since the last tuning.
        wrong: i64[R], wrong ones among them.
    """

    sites: tuple[int, ...]
    window: windows.Window
    thresholds: tuple[float, ...]
    since: int
    due_in: int
    exits: NDArray[np.int64]
    wrong: NDArray[np.int64]

    @property
    def plan(self) -> ExitPlan:
        """The decision that is in force."""
        return ExitPlan(self.sites, self.thresholds)


class Info(NamedTuple):
    """What a decision rests on; for people and metrics, never fed back.

    Attributes:
        tuning: The tuning that was done, if any.
        stopped: Positions of ramps that stopped exiting because of wrong answers.
        events: What happened, in words.
    """

    tuning: Tuning | None = None
    stopped: tuple[int, ...] = ()
    events: tuple[str, ...] = ()


class Controller(NamedTuple):
    """A policy: ``init() -> State``, ``update(state, observation) -> (plan, state, info)``."""

    init: Callable[[], State]
    update: Callable[[State, Observation], tuple[ExitPlan, State, Info]]


def make_controller(
    config: ControlConfig, sites: Sequence[int], savings_ms: Sequence[float]
) -> Controller:
    """The controller that tunes thresholds of a fixed set of ramps.

    Compiles the search, so that nothing is compiled while serving.

    Args:
        config: Settings.
        sites: Active sites.
        savings_ms: What an exit at each of them saves, from the profile.

    Raises:
        ConfigError: If there is not one saving per site, or they increase along the sites, or there
            are too many ways to share the budget.
    """
    active = tuple(sites)
    gains = np.asarray(savings_ms, np.float32)
    check_savings(gains, (config.window, len(active)))

    def init() -> State:
        zeros = np.zeros(len(active), np.int64)
        window = windows.init(config.window, len(active))
        closed = (0.0,) * len(active)
        return State(active, window, closed, 0, config.min_samples, zeros, zeros)

    def update(state: State, observation: Observation) -> tuple[ExitPlan, State, Info]:
        state, info = observe(config, state, observation)
        if active and state.due_in <= 0:
            state, info = tune(config, gains, state)
        return state.plan, state, info

    if active:
        tune(config, gains, init())
    return Controller(init, update)


def observe(config: ControlConfig, state: State, observation: Observation) -> tuple[State, Info]:
    """Take in the feedback of a batch and stop ramps that violate the constraint; no tuning.

    Raises:
        ConfigError: The observation is of other sites, or its arrays do not fit.
    """
    _check(state, observation)
    _, errors, agrees, exits = observation
    window = windows.push(state.window, errors, agrees, exits)
    ramps = len(state.sites)
    rows = np.flatnonzero((exits < ramps) & (exits == first_exits(errors, state.thresholds)))
    at = exits[rows]
    wrong_at = at[~agrees[rows, at]]
    state = state._replace(
        window=window,
        since=state.since + len(exits),
        due_in=state.due_in - len(exits),
        exits=state.exits + np.bincount(at, minlength=ramps),
        wrong=state.wrong + np.bincount(wrong_at, minlength=ramps),
    )
    stopped = violating(config, state) if wrong_at.size else ()
    return _stop(config, state, stopped) if stopped else (state, Info())


def violating(config: ControlConfig, state: State) -> tuple[int, ...]:
    """Positions of the ramps that must stop, by what was released since the last tuning.

    None, unless the wrong answers are more than the constraint allows in ``tune_every`` samples
    (or in those since the last tuning, if more), rounded up. Then every ramp whose own share of
    wrong exits is above the constraint.
    """
    samples = max(state.since, config.tune_every)
    allowed = -budget_for(-config.max_disagreement, samples)
    if state.wrong.sum() <= allowed:
        return ()
    return tuple(np.flatnonzero(state.wrong > config.max_disagreement * state.exits).tolist())


def _stop(config: ControlConfig, state: State, stopped: tuple[int, ...]) -> tuple[State, Info]:
    """Close ramps at once and have the next tuning after the cooldown."""
    events = tuple(
        f"ramp {r} (site {state.sites[r]}) stopped: "
        f"{state.wrong[r]} wrong of {state.exits[r]} exits"
        for r in stopped
    )
    keep = np.isin(np.arange(len(state.sites)), stopped, invert=True)
    state = state._replace(
        thresholds=tuple(float(t) for t in np.where(keep, state.thresholds, 0.0)),
        due_in=config.cooldown,
        exits=state.exits * keep,
        wrong=state.wrong * keep,
    )
    return state, Info(stopped=stopped, events=events)


def tune(
    config: ControlConfig, savings_ms: NDArray[np.float32], state: State
) -> tuple[State, Info]:
    """Tune thresholds on the window; off the serving path.

    Args:
        config: Settings.
        savings_ms: f32[R], what an exit at each ramp saves.
        state: The state before.
    """
    window = state.window
    tuning = tune_first(
        window.errors,
        window.agrees,
        savings_ms,
        window.filled,
        config.tuned_disagreement,
        config.method,
    )
    zeros = np.zeros(len(state.sites), np.int64)
    state = state._replace(
        thresholds=tuple(tuning.thresholds.tolist()),
        since=0,
        due_in=config.tune_every,
        exits=zeros,
        wrong=zeros,
    )
    event = (
        f"tuned on {window.filled} samples: saves {tuning.saving:.3g} ms, "
        f"disagreement {tuning.disagreement:.2%}"
    )
    return state, Info(tuning=tuning, events=(event,))


def _check(state: State, observation: Observation) -> None:
    """Raise a ConfigError unless the observation is of the state's sites and of sound values."""
    if observation.sites != state.sites:
        raise ConfigError(
            f"observation of sites {observation.sites}, but the controller's are {state.sites}: "
            "make a controller for the new set, and leave out what ran with the old one"
        )
    errors, exits = observation.errors, observation.exits
    if (errors < 0).any() or (errors > 1).any():
        raise ConfigError("errors must be 1 - top probability, 0..1, or NaN where there is none")
    if exits.size and not 0 <= exits.min() <= exits.max() <= len(state.sites):
        raise ConfigError(
            f"exits are {exits.min()}..{exits.max()}, expected positions 0..{len(state.sites)}"
        )
