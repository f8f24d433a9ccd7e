"""Apparate's own control, as the paper has it: what everything else is compared with.

**Thresholds** (SOSP'24, section 3.2): whenever the accuracy of the last 16 answers is below the
constraint, they are tuned anew by the greedy search.

**Ramps** (section 3.3, algorithm 2), every 128 answers: a ramp's utility is the time that its exits
saved less the time that it cost those who went on. If one is negative, thresholds are tuned once;
where that is not enough, ramps of negative utility are deactivated, and one more may be tried
behind the last positive one: what was deactivated there splits the sites into intervals, the
candidate of each is its middle, and its exit rate is at most that of the deactivated ramp behind it
and of earlier ones together; the highest positive bound is activated at threshold 0. If none is
positive, the later half of each interval is looked at, and so on. If all utilities are positive, a
ramp is added before the one of highest utility while the budget lasts; else the lowest one moves a
site earlier.

Where the paper is silent:

* Thresholds are tuned on the last 512 answers, or those since the set changed, at least 128; ramps
  that stay active keep their feedback. The check starts afresh after each tuning.
* Utilities are of the answers since the last adjustment, with the thresholds in force and latencies
  of the commonest batch shape. A ramp that saves nothing counts as negative.
* With no deactivated ramp behind it, a candidate is bounded by what the kept ramps let through;
  with no ramps left, all sites are one interval. Older deactivations are forgotten.
* With no free site before the best ramp, the lowest one is moved. A move must fit the budget, too.

The artifact's presets are its constants under this algorithm, not its rules for adding ramps.
Batches of an older set say nothing here.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control import window as windows
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import Controller, Info, Observation
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.thresholds import Method, Tuning, first_exits, tune_first
from apparate_jax.core import ExitPlan
from apparate_jax.ramps.placement import PlacementConfig


class Preset(NamedTuple):
    """Constants of one description of the system.

    Attributes:
        method: Search.
        tune_frac: Share of the constraint that the search may spend; checks are at all of it.
        check_window: Answers whose accuracy is looked at.
        tune_window: Answers that thresholds are tuned on.
        adjust_every: Answers between two adjustments of the ramps.
        in_batches: Count batches in these three, not answers.
        cut: From a period's second violation on: factor on the thresholds of its wrong ramps.
        max_ramps: Active ramps at most; None is the placement's.
        ramp_budget: What ramps may add, as a share; None is the placement's.
    """

    method: Method = "greedy"
    tune_frac: float = 1.0
    check_window: int = 16
    tune_window: int = 512
    adjust_every: int = 128
    in_batches: bool = False
    cut: float = 1.0
    max_ramps: int | None = None
    ramp_budget: float | None = None


PRESETS = {
    "paper": Preset(),
    "artifact": Preset("greedy-artifact", 0.01, 1, 4, 100, True, 0.1, 2, 0.05),
    "artifact-video": Preset("greedy-artifact", 0.01, 1, 4, 30, True, 0.0, 3, 0.05),
}
"""``artifact`` is the public code's setting for text; for ResNet-18 and VGG it has one ramp."""


class State(NamedTuple):
    """What the policy remembers.

    Attributes:
        sites: Active sites, R of them.
        thresholds: One for each.
        window: Feedback at the active ramps; NaN from before a ramp was active.
        recent: Whether each of the last answers was right, oldest first.
        due_in: Answers (or batches) until the next adjustment.
        age: Answers (or batches) since the set changed.
        sizes: Answers in each of the last batches.
        violations: Since the last adjustment.
    """

    sites: tuple[int, ...]
    thresholds: tuple[float, ...]
    window: windows.Window
    recent: tuple[bool, ...]
    due_in: int
    age: int = 0
    sizes: tuple[int, ...] = ()
    violations: int = 0


class Setting(NamedTuple):
    """What does not change: constants, the constraint, trained sites, latencies and budgets."""

    preset: Preset
    eps: float
    trained: tuple[int, ...]
    latency: LatencyModel
    placement: PlacementConfig

    @property
    def max_ramps(self) -> int:
        """Active ramps at most."""
        return min(self.placement.max_ramps, self.preset.max_ramps or len(self.trained))

    def fits(self, sites: tuple[int, ...]) -> bool:
        """Whether a set keeps to the budgets; the ramp budget on average over batch shapes."""
        latency, budget = self.latency, self.preset.ramp_budget or self.placement.ramp_budget
        added = [latency.overhead_ms(sites, b) / latency.vanilla_ms(b) for b in latency.batches]
        return len(sites) <= self.max_ramps and float(np.mean(added)) <= budget


def make_controller(
    config: ControlConfig,
    sites: tuple[int, ...],
    trained: tuple[int, ...],
    latency: LatencyModel,
    placement: PlacementConfig,
    preset: Preset | None = None,
) -> Controller:
    """The paper's policy; thresholds start at 0. Compiles the search for every number of ramps.

    Args:
        config: Its accuracy, and its policy: the name of one of :data:`PRESETS`.
        sites: Active sites at the start.
        trained: Sites with a trained ramp, ascending.
        latency: What any set costs and saves.
        placement: The budgets.
        preset: Other constants than those that the policy names.
    """
    chosen = preset or PRESETS[config.policy]
    setting = Setting(chosen, config.max_disagreement, trained, latency, placement)
    size = max(chosen.tune_window, chosen.adjust_every)
    size *= latency.batches[-1] if chosen.in_batches else 1
    nothing = State((), (), windows.init(size, 0), (), chosen.adjust_every)
    start = _activated(nothing, sites)
    for ramps in range(1, min(max(len(sites), setting.max_ramps), len(trained)) + 1):
        tuned(setting, _activated(nothing, trained[:ramps]))
    return Controller(lambda: start, partial(_update, setting), _plan)


def _plan(state: State) -> ExitPlan:
    return ExitPlan(state.sites, state.thresholds)


def _update(
    setting: Setting, state: State, observation: Observation
) -> tuple[ExitPlan, State, Info]:
    if observation.sites != state.sites:
        return _plan(state), state, Info()
    state = _observed(setting, state, observation)
    events: tuple[str, ...] = ()
    tuning = None
    if sum(state.recent) < (1.0 - setting.eps) * len(state.recent) - 1e-9:
        state, tuning = tuned(setting, state._replace(violations=state.violations + 1))
        if state.violations > 1:
            state = cut(setting, state, observation)
        events = ("tuned: the last answers are below the constraint",)
    if state.due_in <= 0:
        state, again = adjust(setting, state)
        tuning, old = again or tuning, observation.sites
        if state.sites != old:
            events = (*events, f"ramps at sites {list(old)} become sites {list(state.sites)}")
    return _plan(state), state, Info(tuning=tuning, events=events)


def _observed(setting: Setting, state: State, observation: Observation) -> State:
    """The state with a batch taken in."""
    preset, samples = setting.preset, len(observation.exits)
    rows = windows.Rows(observation.errors, observation.agrees, observation.shape)
    answered = np.append(observation.agrees, np.ones((samples, 1), np.bool_), axis=1)
    right = answered[np.arange(samples), observation.exits].tolist()
    units = 1 if preset.in_batches else samples
    sizes = (*state.sizes, samples)[-max(preset.tune_window, preset.adjust_every) :]
    window, due_in = windows.push(state.window, rows), state.due_in - units
    state = state._replace(window=window, due_in=due_in, age=state.age + units, sizes=sizes)
    kept = _samples(setting, state, preset.check_window)
    return state._replace(recent=(*state.recent, *right)[-kept:] if kept else ())


def _samples(setting: Setting, state: State, units: int) -> int:
    """Answers in the last so many answers (or batches)."""
    return sum(state.sizes[-units:]) if setting.preset.in_batches else units


def tuned(setting: Setting, state: State) -> tuple[State, Tuning | None]:
    """Thresholds that the search finds on the last answers."""
    preset, window = setting.preset, windows.settle(state.window)
    state = state._replace(window=window, recent=())
    if not state.sites:
        return state, None
    units = min(preset.tune_window, max(state.age, preset.adjust_every))
    part = windows.last(window, _samples(setting, state, units))
    savings, limit = _savings(setting, state), preset.tune_frac * setting.eps
    tuning = tune_first(part.errors, part.agrees, savings, part.filled, limit, preset.method)
    return state._replace(thresholds=tuple(tuning.thresholds.tolist())), tuning


def cut(setting: Setting, state: State, observation: Observation) -> State:
    """Lower the thresholds of ramps whose answers in a batch were below the constraint."""
    lowered = list(state.thresholds)
    for ramp in range(len(lowered)):
        right = observation.agrees[observation.exits == ramp, ramp]
        if right.size and right.mean() < 1.0 - setting.eps - 1e-9:
            lowered[ramp] *= setting.preset.cut
    return state._replace(thresholds=tuple(lowered))


def _batch(setting: Setting, state: State) -> int:
    """The commonest batch shape of the window, which is settled."""
    shapes = state.window.shapes[: state.window.filled]
    return int(np.bincount(shapes).argmax()) if shapes.size else setting.latency.batches[0]


def _savings(setting: Setting, state: State) -> NDArray[np.float32]:
    return np.asarray(setting.latency.savings_ms(state.sites, _batch(setting, state)), np.float32)


def measure(setting: Setting, state: State) -> tuple[list[float], list[float]]:
    """Utility in ms and exit rate of each active ramp since the last adjustment."""
    state = state._replace(window=windows.settle(state.window))
    ramps = len(state.sites)
    since = _samples(setting, state, setting.preset.adjust_every - state.due_in)
    part = windows.last(state.window, since)
    exits = first_exits(part.errors[: part.filled], state.thresholds)
    counts = np.bincount(exits, minlength=ramps + 1)[:ramps]
    costs = setting.latency.costs_ms(_batch(setting, state))[list(state.sites)]
    utilities = counts * _savings(setting, state) - (part.filled - np.cumsum(counts)) * costs
    return utilities.tolist(), (counts / max(part.filled, 1)).tolist()


def adjust(setting: Setting, state: State) -> tuple[State, Tuning | None]:
    """One round of algorithm 2; None if thresholds were not tuned."""
    utilities, rates = measure(setting, state)
    tuning, sites = None, state.sites
    if sites and min(utilities) > 0.0:
        sites = grow(setting, sites, utilities)
    else:
        state, tuning = tuned(setting, state)
        utilities, rates = measure(setting, state)
        profiled = dict(zip(sites, rates, strict=True))
        kept = {site: profiled[site] for site, u in zip(sites, utilities, strict=True) if u > 0.0}
        gone = {site: rate for site, rate in profiled.items() if site not in kept}
        if gone or not sites:
            added = candidate(setting, kept, gone, _batch(setting, state))
            sites = tuple(sorted(kept if added is None else {*kept, added}))
    window, due_in = windows.settle(state.window), setting.preset.adjust_every
    state = state._replace(window=window, due_in=due_in, violations=0)
    return (state if sites == state.sites else _activated(state, sites)), tuning


def _activated(state: State, sites: tuple[int, ...]) -> State:
    """Another set, the window settled: ramps that stay keep thresholds and feedback."""
    window, shape = state.window, (len(state.window.errors), len(sites))
    errors, agrees = np.full(shape, np.nan, np.float32), np.zeros(shape, np.bool_)
    new = [column for column, site in enumerate(sites) if site in state.sites]
    old = [state.sites.index(sites[column]) for column in new]
    errors[:, new], agrees[:, new] = window.errors[:, old], window.agrees[:, old]
    errors.flags.writeable = agrees.flags.writeable = False
    before = dict(zip(state.sites, state.thresholds, strict=True))
    thresholds = tuple(before.get(site, 0.0) for site in sites)
    window = window._replace(errors=errors, agrees=agrees)
    return state._replace(sites=sites, thresholds=thresholds, window=window, age=0)


def grow(setting: Setting, sites: tuple[int, ...], utilities: list[float]) -> tuple[int, ...]:
    """All utilities are positive: one more ramp before the best, or the worst a site earlier."""
    best, worst = sites[int(np.argmax(utilities))], sites[int(np.argmin(utilities))]
    for ramp, left_out in ((best, set[int]()), (worst, {worst})):
        at = setting.trained.index(ramp)
        found = tuple(sorted({*sites, setting.trained[max(at - 1, 0)]} - left_out))
        if at and setting.trained[at - 1] not in sites and setting.fits(found):
            return found
    return sites


def candidate(
    setting: Setting, kept: dict[int, float], gone: dict[int, float], batch: int
) -> int | None:
    """The site behind the last ramp kept with the highest positive bound, from exit rates."""
    costs, left = setting.latency.costs_ms(batch), 1.0 - sum(kept.values())
    intervals = _intervals([s for s in setting.trained if s > max(kept, default=-1)], gone)
    while intervals:
        best: tuple[float, int | None] = (0.0, None)
        for interval, behind in intervals:
            site = interval[len(interval) // 2]
            known = sum(rate for s, rate in gone.items() if s < site or s == behind)
            rate = left if behind is None else min(left, known)
            saving = setting.latency.savings_ms((site,), batch)[0]
            bound = rate * saving - (left - rate) * float(costs[site])
            if bound > best[0] and setting.fits(tuple(sorted({*kept, site}))):
                best = (bound, site)
        if best[1] is not None:
            return best[1]
        later = [(sites[len(sites) // 2 + 1 :], behind) for sites, behind in intervals]
        intervals = [interval for interval in later if interval[0]]
    return None


def _intervals(sites: list[int], gone: dict[int, float]) -> list[tuple[list[int], int | None]]:
    """The sites between deactivated ones, each run with the deactivated one behind it, if any."""
    runs: list[tuple[list[int], int | None]] = []
    start = 0
    for at, site in enumerate(sites):
        if site in gone:
            runs.append((sites[start:at], site))
            start = at + 1
    return [(run, behind) for run, behind in (*runs, (sites[start:], None)) if run]
