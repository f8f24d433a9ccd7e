"""Apparate's own control, as the paper has it: what everything else is compared with.

**Thresholds** (section 3.2): whenever the accuracy of the last 16 answers is below the constraint,
they are tuned anew by the greedy search.

**Ramps** (section 3.3, algorithm 2), every 128 answers: a ramp's utility is the time that its exits
saved less the time that it cost those who went on. If some utility is negative, thresholds are
tuned once; ramps that stay negative are deactivated, and behind the last positive ramp one may be
tried: the inactive sites there form intervals between sites that were deactivated, the candidate of
an interval is its middle, and its exit rate is at most that of the deactivated ramp behind it and
those of earlier deactivations together; the candidate with the highest positive bound is activated
at threshold 0. If all utilities are positive, a ramp is added just before the one of highest
utility while the budget lasts; otherwise the lowest one moves a site earlier.

Where the paper is silent: thresholds are tuned on the last :data:`TUNE_WINDOW` answers of the
active set, and at every adjustment too (else the first tuning never comes, with all thresholds at
0); a site of unknown exit rate is bounded by what the active ramps before it let through.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control import window as windows
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import Controller, Info, Observation
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.thresholds import Method, first_exits, tune_first
from apparate_jax.core import ExitPlan
from apparate_jax.ramps.placement import PlacementConfig


class Preset(NamedTuple):
    """Constants of one description of the system.

    Attributes:
        method: Threshold search.
        check_window: Answers whose accuracy is looked at.
        tune_window: Answers that thresholds are tuned on.
        adjust_every: Answers between two adjustments of the ramps.
        max_ramps: Active ramps at most; None is the placement's.
    """

    method: Method = "greedy"
    check_window: int = 16
    tune_window: int = 512
    adjust_every: int = 128
    max_ramps: int | None = None


PRESETS = {
    "paper": Preset(),
    # The public artifact for NLP: windows of 4 batches and adjustments every 100, of 8 inputs each.
    "artifact": Preset("greedy-artifact", 32, 32, 800, 2),
}
TUNE_WINDOW = PRESETS["paper"].tune_window


class State(NamedTuple):
    """What the policy remembers.

    Attributes:
        sites: Active sites, R of them.
        thresholds: One for each.
        window: Feedback at the active ramps.
        recent: Whether each of the last answers was right, oldest first.
        due_in: Answers until the next adjustment.
        rates: Exit rate of each site when it was deactivated.
    """

    sites: tuple[int, ...]
    thresholds: tuple[float, ...]
    window: windows.Window
    recent: tuple[bool, ...]
    due_in: int
    rates: dict[int, float]


class Setting(NamedTuple):
    """What does not change: settings, trained sites, latencies and budgets."""

    preset: Preset
    eps: float
    trained: tuple[int, ...]
    latency: LatencyModel
    placement: PlacementConfig

    @property
    def max_ramps(self) -> int:
        """Active ramps at most."""
        most = self.placement.max_ramps
        return most if self.preset.max_ramps is None else min(most, self.preset.max_ramps)


def make_controller(
    config: ControlConfig,
    sites: tuple[int, ...],
    trained: tuple[int, ...],
    latency: LatencyModel,
    placement: PlacementConfig,
) -> Controller:
    """The paper's policy; thresholds start at 0.

    Args:
        config: Its accuracy, and its policy: the name of one of :data:`PRESETS`.
        sites: Active sites at the start.
        trained: Sites with a trained ramp.
        latency: What any set costs and saves.
        placement: The budgets.

    References:
        Apparate (SOSP'24), sections 3.2 and 3.3.
    """
    preset = PRESETS[config.policy]
    setting = Setting(preset, config.max_disagreement, trained, latency, placement)
    state = _activate(setting, sites, {})
    _tuned(setting, state)
    return Controller(lambda: state, partial(_update, setting), _plan)


def _plan(state: State) -> ExitPlan:
    return ExitPlan(state.sites, state.thresholds)


def _activate(setting: Setting, sites: tuple[int, ...], rates: dict[int, float]) -> State:
    """The state with another set, nothing known of it."""
    window = windows.init(setting.preset.tune_window, len(sites))
    return State(sites, (0.0,) * len(sites), window, (), setting.preset.adjust_every, rates)


def _update(
    setting: Setting, state: State, observation: Observation
) -> tuple[ExitPlan, State, Info]:
    if observation.sites != state.sites:
        return _plan(state), state, Info()
    rows = windows.Rows(observation.errors, observation.agrees, observation.shape)
    ramps = len(state.sites)
    answered = np.append(observation.agrees, np.ones((len(rows.errors), 1), np.bool_), axis=1)
    right = np.take_along_axis(answered, observation.exits[:, None], axis=1)[:, 0].tolist()
    state = state._replace(
        window=windows.push(state.window, rows),
        recent=(*state.recent, *right)[-setting.preset.check_window :],
        due_in=state.due_in - len(right),
    )
    events: tuple[str, ...] = ()
    tuning = None
    if ramps and sum(state.recent) < (1.0 - setting.eps) * len(state.recent) - 1e-9:
        state, tuning = _tuned(setting, state)
        events = ("tuned: the last answers are below the constraint",)
    if state.due_in <= 0:
        before = state.sites
        state, tuning = _adjust(setting, state)
        if state.sites != before:
            events = (*events, f"ramps at sites {list(before)} become {list(state.sites)}")
    return _plan(state), state, Info(tuning=tuning, events=events)


def _tuned(setting: Setting, state: State) -> tuple[State, Any]:
    """Thresholds that the search finds on the window."""
    window = windows.settle(state.window)
    if not state.sites:
        return state._replace(window=window), None
    savings = _savings(setting, state.sites)
    tuning = tune_first(
        window.errors, window.agrees, savings, window.filled, setting.eps, setting.preset.method
    )
    thresholds = tuple(tuning.thresholds.tolist())
    return state._replace(window=window, thresholds=thresholds, recent=()), tuning


def _savings(setting: Setting, sites: tuple[int, ...]) -> NDArray[np.float32]:
    batch = setting.latency.batches[0]
    return np.asarray(setting.latency.savings_ms(sites, batch), np.float32)


def _adjust(setting: Setting, state: State) -> tuple[State, Any]:
    """One round of algorithm 2."""
    state, tuning = _tuned(setting, state)
    state = state._replace(due_in=setting.preset.adjust_every)
    utilities, rates = measure(setting, state)
    known = {**state.rates, **dict(zip(state.sites, rates, strict=True))}
    if state.sites and min(utilities) >= 0.0:
        sites = grow(setting, state.sites, utilities)
    else:
        kept = tuple(s for s, u in zip(state.sites, utilities, strict=True) if u >= 0.0)
        added = candidate(setting, kept, known)
        sites = kept if added is None else tuple(sorted((*kept, added)))
    if sites == state.sites:
        return state._replace(rates=known), tuning
    return _carried(_activate(setting, sites, known), state), tuning


def _carried(new: State, old: State) -> State:
    """Ramps that stay active keep their thresholds until the next tuning."""
    before = dict(zip(old.sites, old.thresholds, strict=True))
    return new._replace(thresholds=tuple(before.get(site, 0.0) for site in new.sites))


def measure(setting: Setting, state: State) -> tuple[list[float], list[float]]:
    """Utility in ms and exit rate of each active ramp on the window, thresholds as they are."""
    window = state.window
    samples = max(window.filled, 1)
    exits = first_exits(window.errors[: window.filled], state.thresholds)
    counts = np.bincount(exits, minlength=len(state.sites) + 1)
    batch = setting.latency.batches[0]
    costs = setting.latency.costs_ms(batch)[list(state.sites)]
    savings = _savings(setting, state.sites)
    passed = samples - np.cumsum(counts)[: len(state.sites)]
    utilities = counts[: len(state.sites)] * savings - passed * costs
    return utilities.tolist(), (counts[: len(state.sites)] / samples).tolist()


def grow(setting: Setting, sites: tuple[int, ...], utilities: list[float]) -> tuple[int, ...]:
    """All utilities are positive: one more ramp before the best, or the worst a site earlier."""
    best = sites[int(np.argmax(utilities))]
    earlier = _before(setting, sites, best)
    if earlier is not None:
        more = tuple(sorted((*sites, earlier)))
        if len(more) <= setting.max_ramps and _fits(setting, more):
            return more
    worst = sites[int(np.argmin(utilities))]
    moved = _before(setting, sites, worst)
    if moved is None:
        return sites
    return tuple(sorted({*sites, moved} - {worst}))


def _before(setting: Setting, sites: tuple[int, ...], site: int) -> int | None:
    """The trained site just before one, unless it is active already or there is none."""
    at = setting.trained.index(site)
    if at == 0 or setting.trained[at - 1] in sites:
        return None
    return setting.trained[at - 1]


def _fits(setting: Setting, sites: tuple[int, ...]) -> bool:
    latency, budget = setting.latency, setting.placement.ramp_budget
    added = [latency.overhead_ms(sites, b) / latency.vanilla_ms(b) for b in latency.batches]
    return float(np.mean(added)) <= budget


def candidate(setting: Setting, kept: tuple[int, ...], rates: dict[int, float]) -> int | None:
    """The inactive site behind the last kept ramp whose upper bound of utility is highest.

    Args:
        setting: Trained sites, latencies and budgets.
        kept: Active sites, all of positive utility.
        rates: Exit rate of each site that was ever active.

    Returns:
        None if no bound is positive, or the budget holds no more.
    """
    open_sites = [s for s in setting.trained if not kept or s > kept[-1]]
    batch = setting.latency.batches[0]
    costs = setting.latency.costs_ms(batch)
    left = 1.0 - sum(rates.get(site, 0.0) for site in kept)
    best: tuple[float, int | None] = (0.0, None)
    for interval, behind in _intervals(open_sites, rates):
        middle = interval[len(interval) // 2]
        known = [rates[s] for s in open_sites if s in rates and (s < middle or s == behind)]
        rate = min(left, sum(known)) if behind is not None else left
        chosen = tuple(sorted((*kept, middle)))
        if len(chosen) > setting.max_ramps or not _fits(setting, chosen):
            continue
        saving = setting.latency.savings_ms((middle,), batch)[0]
        bound = rate * saving - (left - rate) * float(costs[middle])
        if bound > best[0]:
            best = (bound, middle)
    return best[1]


def _intervals(sites: list[int], rates: dict[int, float]) -> list[tuple[list[int], int | None]]:
    """Runs of sites that were never active, each with the deactivated site behind it, if any."""
    out: list[tuple[list[int], int | None]] = []
    run: list[int] = []
    for site in sites:
        if site in rates:
            if run:
                out.append((run, site))
            run = []
        else:
            run.append(site)
    if run:
        out.append((run, None))
    return out
