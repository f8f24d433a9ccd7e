"""The controller: thresholds and active ramps from the feedback on every answer, under a guard.

Three parts, each pure, and none sees a clock. The **tuner** finds thresholds on the last samples,
for a ladder of budgets. The **guard** (:mod:`apparate_jax.control.guard`) says before each batch
which step of the ladder is in force and how many early answers may be unchecked. The **adjuster**
(:mod:`apparate_jax.control.adjust`) chooses the active set on shadow batches.

A ramp whose wrong exits are more than planned (:mod:`apparate_jax.control.drift`) **stops in that
very decision**: its threshold is 0 at every step. The past is forgotten up to where it went bad,
and tuning, which may open it again, follows ``cooldown`` samples later on what is left; a fresh
window is trusted by its Clopper-Pearson bound only.

What ramp training held out is the first feedback: answers may leave early from the first batch on.

Sharp edges: the first tuning compiles the search, so :func:`make_controller` does it ahead. A batch
that ran with another set of ramps counts for the guard and says nothing to the tuner.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control import adjust, drift, guard, ladder, others, paper
from apparate_jax.control import window as windows
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import Controller, Info, Observation
from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.ramps.train import Validation

__all__ = ["ControlConfig", "State", "make_controller"]


RENEWED = 16
"""A full window is tuned on again when one part in so many is new."""


class State(NamedTuple):
    """What the controller remembers.

    Attributes:
        sites: Active sites, R of them.
        window: Feedback of the last samples at the active ramps.
        ladder: Thresholds for every budget, from the last tuning.
        step: Step of the ladder in force.
        open: Ramps that may exit; the others were stopped.
        added_ms: What the ramps add to a batch, in the mix of shapes of the window.
        due_in: Samples until the next tuning.
        drift: Evidence against each ramp.
        guard: Credit and levels.
        shadow: Feedback of shadow batches and what is known of other sets; None if the set is
            fixed.
    """

    sites: tuple[int, ...]
    window: windows.Window
    ladder: ladder.Ladder
    step: int
    open: tuple[bool, ...]
    added_ms: float
    due_in: int
    drift: drift.Drift
    guard: guard.Guard
    shadow: adjust.Shadows | None


def make_controller(
    config: ControlConfig,
    sites: Sequence[int],
    latency: LatencyModel,
    *,
    validation: Validation | None = None,
    placement: PlacementConfig | None = None,
    num_bytes: Mapping[int, int] | None = None,
) -> Controller:
    """The controller of a set of ramps; compiles its searches, so that nothing compiles later.

    Args:
        config: Settings; ``config.policy`` says which controller it is.
        sites: Active sites at the start.
        latency: What any set of ramps costs and saves.
        validation: What all trained ramps said about held-out samples: the first feedback.
            Without it nothing exits until enough answers were seen, and the set is fixed.
        placement: Budgets of the ramps, for policies that change the set.
        num_bytes: Memory of each site's ramp; not counted if None.

    Raises:
        ConfigError: An active site has no trained ramp, or the search refuses the sizes.
    """
    active = tuple(sites)
    budgets = placement or PlacementConfig()
    if validation is not None and not set(active) <= set(validation.sites):
        raise ConfigError(
            f"active sites {list(active)}, but trained ramps are at {list(validation.sites)}"
        )
    if config.policy in paper.PRESETS:
        trained = active if validation is None else validation.sites
        return paper.make_controller(config, active, trained, latency, budgets)
    options = None
    if config.policy == "exact" and validation is not None and config.shadow_every:
        options = adjust.make_options(config, validation, latency, budgets, num_bytes)
    init = partial(_init, config, active, latency, validation, options)
    init()
    if options is not None:
        for ramps in range(1, options.max_ramps + 1):
            _warm(config, ramps)
    update = partial(_update, config, latency, options)
    return Controller(init, update, partial(_plan, config), _resume)


def _init(
    config: ControlConfig,
    sites: tuple[int, ...],
    latency: LatencyModel,
    validation: Validation | None,
    options: adjust.Options | None,
) -> State:
    window = windows.init(config.samples, len(sites))
    if validation is not None:
        columns = [validation.sites.index(site) for site in sites]
        rows = windows.Rows(
            validation.errors[:, columns], validation.agrees[:, columns], latency.batches[0]
        )
        window = windows.push(window, rows)
    state = State(
        sites,
        window,
        ladder.closed(len(sites)),
        0,
        (True,) * len(sites),
        0.0,
        config.tune_every,
        drift.start((0.0,) * len(sites)),
        guard.Guard(config.max_disagreement, config.promise, config.unchecked_batches),
        None if options is None else adjust.start(config, options),
    )
    return _tune(config, latency, state)[0]


def _resume(state: State) -> State:
    """The engine counts early answers from its own start; so does the cap."""
    return state._replace(guard=state.guard._replace(exits=0))


def _warm(config: ControlConfig, ramps: int) -> None:
    """Compile the searches for a set of so many ramps, whichever they are."""
    ladder.tune(config, windows.init(config.samples, ramps), np.ones(ramps, np.float32))


def _plan(config: ControlConfig, state: State) -> ExitPlan:
    """The decision that is in force."""
    thresholds = state.ladder.thresholds[state.step]
    return ExitPlan(
        state.sites,
        tuple(t if ok else 0.0 for t, ok in zip(thresholds, state.open, strict=True)),
        guard.exit_cap(state.guard),
        0 if state.shadow is None else adjust.shadow_every(config, state.shadow),
        _worth(state),
    )


def _worth(state: State) -> float:
    """What exits save per input, as a multiple of what the ramps add to a batch."""
    saved = state.ladder.savings_ms[state.step]
    return saved / state.added_ms if state.added_ms > 0.0 else math.inf


def _update(
    config: ControlConfig,
    latency: LatencyModel,
    options: adjust.Options | None,
    state: State,
    observation: Observation,
) -> tuple[ExitPlan, State, Info]:
    state, info = observe(config, state, observation)
    if state.shadow is not None and options is not None:
        state, changed = _adjust(config, latency, options, state)
        info = info._replace(events=info.events + changed)
    if state.sites and state.due_in <= 0:
        state, info = _tune(config, latency, state, info)
    state = state._replace(step=ladder.step_for(state.ladder, guard.level(state.guard)))
    return _plan(config, state), state, info


def observe(config: ControlConfig, state: State, observation: Observation) -> tuple[State, Info]:
    """Take in the feedback of a batch and stop ramps that went bad; no tuning. Microseconds.

    Raises:
        ConfigError: Exits that are no positions of the batch's ramps, or shapes that do not fit.
    """
    exits, right, wrong_rows = _early(observation)
    samples = len(observation.exits)
    checked = guard.observe(state.guard, samples, len(exits), wrong_rows)
    if observation.lost:
        lost = observation.lost
        checked = guard.observe(checked, lost, lost, list(range(lost)))
    state = state._replace(guard=checked)
    if state.shadow is not None:
        state = state._replace(shadow=adjust.observe(state.shadow, observation))
    if observation.sites != state.sites or not state.sites:
        return state, Info()
    rows = windows.Rows(observation.errors, observation.agrees, observation.shape)
    state = state._replace(
        window=windows.push(state.window, rows),
        due_in=state.due_in - samples,
        drift=drift.observe(state.drift, exits, right, samples),
    )
    bad = tuple(r for r in drift.alarms(state.drift) if state.open[r])
    return _stop(config, state, bad) if bad else (state, Info())


def _early(observation: Observation) -> tuple[list[int], list[bool], list[int]]:
    """Ramp of each early answer, whether it was right, and the rows of the wrong ones."""
    exits, ramps = observation.exits, len(observation.sites)
    shape = (len(exits), ramps)
    if observation.errors.shape != shape or observation.agrees.shape != shape:
        raise ConfigError(
            f"errors {list(observation.errors.shape)} and agrees "
            f"{list(observation.agrees.shape)} of {ramps} ramps, expected {list(shape)}"
        )
    if exits.size and not 0 <= exits.min() <= exits.max() <= ramps:
        raise ConfigError(f"exits are {exits.min()}..{exits.max()}, expected positions 0..{ramps}")
    rows = (exits < ramps).nonzero()[0]
    at = exits[rows]
    right = observation.agrees[rows, at]
    return at.tolist(), right.tolist(), rows[~right].tolist()


def _stop(config: ControlConfig, state: State, bad: tuple[int, ...]) -> tuple[State, Info]:
    """Close ramps at once, forget what was before they went bad, tune after the cooldown."""
    fresh = max(state.drift.since[r] for r in bad)
    events = tuple(
        f"ramp at site {state.sites[r]} stopped: more wrong exits in the last "
        f"{state.drift.since[r]} samples than planned"
        for r in bad
    )
    state = state._replace(
        window=windows.last(state.window, fresh),
        open=tuple(ok and r not in bad for r, ok in enumerate(state.open)),
        due_in=config.cooldown,
        drift=drift.reset(state.drift, bad),
        shadow=None if state.shadow is None else adjust.forget(state.shadow, fresh),
    )
    return state, Info(stopped=bad, events=events)


def _tune(
    config: ControlConfig, latency: LatencyModel, state: State, info: Info | None = None
) -> tuple[State, Info]:
    """A new ladder from the window; off the serving path."""
    info = info or Info()
    window = windows.settle(state.window)
    due_in = max(config.tune_every, window.filled // RENEWED)
    if not state.sites:
        return state._replace(window=window, due_in=due_in), info
    savings, added_ms = savings_and_cost(latency, state.sites, window)
    now = np.asarray(state.ladder.thresholds[state.step], np.float32)
    hold = others.hold_of(savings, others.left_by(window.errors[: window.filled], now))
    worth = others.with_others(savings, hold, config.others)
    found = ladder.tune(config, window, savings, worth)
    step = ladder.step_for(found, guard.level(state.guard))
    state = state._replace(
        window=window,
        ladder=found,
        step=step,
        open=(True,) * len(state.sites),
        added_ms=added_ms,
        due_in=due_in,
        drift=drift.replan(state.drift, found.wrong_shares[step]),
    )
    tuning = ladder.tuning(found, step)
    event = (
        f"tuned on {window.filled} samples: saves {tuning.saving:.3g} ms, "
        f"disagreement {tuning.disagreement:.2%}"
    )
    return state, info._replace(tuning=tuning, events=(*info.events, event))


def savings_and_cost(
    latency: LatencyModel, sites: tuple[int, ...], window: windows.Window
) -> tuple[NDArray[np.float32], float]:
    """In the mix of batch shapes that was seen, and with ``R`` active ramps.

    Returns:
        What an exit at each of them saves, f32[R], and what all add to a batch, in ms.
    """
    counts = np.bincount(window.shapes[: window.filled], minlength=1)
    seen = np.flatnonzero(counts).tolist() or [latency.batches[0]]
    weights = counts[seen] if counts.any() else None
    savings = [latency.savings_ms(sites, batch) for batch in seen]
    added = [latency.overhead_ms(sites, batch) for batch in seen]
    mean = np.average(savings, axis=0, weights=weights).astype(np.float32)
    return mean, float(np.average(added, weights=weights))


def _adjust(
    config: ControlConfig, latency: LatencyModel, options: adjust.Options, state: State
) -> tuple[State, tuple[str, ...]]:
    """Change the active set, if another one is worth it."""
    assert state.shadow is not None  # the caller looked
    shadow, sites, why = adjust.choose(config, options, state.shadow, state.sites)
    state = state._replace(shadow=shadow)
    if sites == state.sites:
        return state, ()
    window = adjust.seed(shadow, sites, config.samples)
    state = state._replace(
        sites=sites,
        window=window,
        ladder=ladder.closed(len(sites)),
        step=0,
        open=(True,) * len(sites),
        due_in=0,
        drift=drift.start((0.0,) * len(sites)),
    )
    return state, (why,)
