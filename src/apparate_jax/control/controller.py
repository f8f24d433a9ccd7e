"""The controller: from what was observed to the thresholds in force. A pure function.

``init() -> State`` and ``update(state, observation) -> (plan, state, info)``: no clock, no threads,
no randomness, so that the live engine, a replay and the tests drive the same code. Further policies
(a guard, adjustment of the active set) wrap a controller and are controllers themselves.

Thresholds start at 0. Every answer is checked against the original model's, so each completed batch
is full feedback. Thresholds are tuned on the window every ``tune_every`` samples. A ramp that lets
out more wrong answers than the constraint allows stops exiting in the very decision that answers
that observation; the tuning that may open it again comes with the next one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control import window as windows
from apparate_jax.control.thresholds import METHODS, Method, Tuning, budget_for, tune_within
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
        budget_frac: Share of the allowed wrong answers that tuning may spend on the window. What is
            tuned to the limit on one window is too bold on the next; see docs/control.md.
        method: Threshold search.
    """

    accuracy: float = 0.99
    window: int = 2048
    tune_every: int = 128
    min_samples: int = 256
    budget_frac: float = 0.5
    method: Method = "exact"

    def __post_init__(self) -> None:
        if not 0.0 < self.accuracy <= 1.0 or not 0.0 < self.budget_frac <= 1.0:
            raise ConfigError(
                f"accuracy is {self.accuracy} and budget_frac {self.budget_frac}, expected 0..1"
            )
        if not 1 <= self.tune_every <= self.window or not 1 <= self.min_samples <= self.window:
            raise ConfigError(
                f"tune_every is {self.tune_every} and min_samples {self.min_samples}, expected "
                f"1 to the window's {self.window}"
            )
        if self.method not in METHODS:
            raise ConfigError(f"method is {self.method!r}, expected one of {list(METHODS)}")

    @property
    def max_disagreement(self) -> float:
        """Share of answers that may differ from the original's."""
        return 1.0 - self.accuracy


class Observation(NamedTuple):
    """Feedback of one completed batch.

    Attributes:
        errors: f32[n, R].
        agrees: bool[n, R].
        exits: i32[n], position of the ramp that answered, R for the original model.
    """

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    exits: NDArray[np.int32]

    @staticmethod
    def of(record: BatchRecord) -> "Observation":
        """What a batch's record says."""
        return Observation(record.errors, record.agrees, record.exits)


class State(NamedTuple):
    """What the controller remembers.

    Attributes:
        window: Errors and agreement of the last samples.
        thresholds: In force, one per active ramp.
        since: Samples since the last tuning.
        exits: i64[R], exits since the last tuning.
        wrong: i64[R], wrong ones among them.
        due: Whether to tune at the next observation, whatever ``since`` is.
    """

    window: windows.Window
    thresholds: tuple[float, ...]
    since: int
    exits: NDArray[np.int64]
    wrong: NDArray[np.int64]
    due: bool


class Info(NamedTuple):
    """What a decision rests on; for people and metrics, never fed back.

    Attributes:
        tuning: The tuning that was done, if any.
        stopped: Positions of ramps that stopped exiting because of wrong answers.
    """

    tuning: Tuning | None
    stopped: tuple[int, ...]


class Controller(NamedTuple):
    """A policy: ``init() -> State``, ``update(state, observation) -> (plan, state, info)``."""

    init: Callable[[], State]
    update: Callable[[State, Observation], tuple[ExitPlan, State, Info]]


def make_controller(
    config: ControlConfig, sites: Sequence[int], savings_ms: Sequence[float]
) -> Controller:
    """The controller that tunes thresholds of a fixed set of ramps.

    Args:
        config: Settings.
        sites: Active sites.
        savings_ms: What an exit at each of them saves, from the profile.

    Raises:
        ConfigError: If there is not one saving per site, or they increase along the sites.
    """
    active = tuple(sites)
    gains = np.asarray(savings_ms, np.float32)
    if gains.shape != (len(active),) or (gains < 0).any() or (np.diff(gains) > 0).any():
        raise ConfigError(
            f"savings are {list(savings_ms)} for sites {list(active)}: expected one per site, "
            "not negative and not increasing"
        )
    table = np.ascontiguousarray(np.broadcast_to(gains, (config.window, len(active))))
    allowed = config.budget_frac * config.max_disagreement
    max_limit = budget_for(allowed, config.window)

    def init() -> State:
        zeros = np.zeros(len(active), np.int64)
        window = windows.empty(config.window, len(active))
        return State(window, (0.0,) * len(active), 0, zeros, zeros, False)

    def tune(state: State) -> tuple[State, Tuning]:
        window = state.window
        limit = budget_for(allowed, window.filled)
        tuning = tune_within(window.errors, window.agrees, table, limit, max_limit, config.method)
        zeros = np.zeros(len(active), np.int64)
        thresholds = tuple(float(t) for t in tuning.thresholds)
        return State(window, thresholds, 0, zeros, zeros, False), tuning

    def update(state: State, observation: Observation) -> tuple[ExitPlan, State, Info]:
        if not active:
            return ExitPlan(), state, Info(None, ())
        state = observe(state, observation)
        stopped = violating(state, config)
        if stopped:
            kept = tuple(0.0 if r in stopped else t for r, t in enumerate(state.thresholds))
            state = state._replace(thresholds=kept, due=True)
            return ExitPlan(active, kept), state, Info(None, stopped)
        tuning = None
        enough = state.window.filled >= config.min_samples
        if enough and (state.due or state.since >= config.tune_every):
            state, tuning = tune(state)
        return ExitPlan(active, state.thresholds), state, Info(tuning, ())

    return Controller(init, update)


def observe(state: State, observation: Observation) -> State:
    """Take in the feedback of a batch; cheap, no tuning."""
    ramps = len(state.thresholds)
    left_early = observation.exits < ramps
    at = observation.exits[left_early]
    wrong = ~observation.agrees[left_early, at]
    return state._replace(
        window=windows.push(state.window, observation.errors, observation.agrees),
        since=state.since + len(observation.exits),
        exits=state.exits + np.bincount(at, minlength=ramps),
        wrong=state.wrong + np.bincount(at[wrong], minlength=ramps),
    )


def violating(state: State, config: ControlConfig) -> tuple[int, ...]:
    """Ramps that still exit although too many of their answers were wrong since the last tuning.

    Too many: more than the constraint allows of ``tune_every`` samples (rounded up, so that a
    single wrong answer is none), or of all samples since then if they are more; then every ramp
    whose own share of wrong exits is above the constraint.
    """
    samples = max(state.since, config.tune_every)
    allowed = -budget_for(-config.max_disagreement, samples)
    if state.wrong.sum() <= allowed:
        return ()
    return tuple(
        r
        for r, threshold in enumerate(state.thresholds)
        if threshold > 0.0 and state.wrong[r] > config.max_disagreement * state.exits[r]
    )
