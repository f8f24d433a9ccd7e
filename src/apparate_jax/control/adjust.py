"""Which ramps are active: chosen with their thresholds on what shadow batches say of every ramp.

The paper guesses at inactive ramps by bounds and trials (Apparate, SOSP'24, section 3.3, and
:mod:`apparate_jax.control.paper`). A shadow batch asks them: it runs as usual, and once its answers
have left, the other heads run on the values that it computed anyway. On a window of such samples
the set and its thresholds are chosen together, every set of at most ``max_ramps`` ramps compared,
within the ramp budget and the memory budget, for what they save themselves and others
(:mod:`apparate_jax.control.others`).

Another set takes over only if it saves more by a margin and by more than one standard error of the
difference, sample by sample: sets that are alike do not flap.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control import others
from apparate_jax.control import window as windows
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import Observation
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import EAGER
from apparate_jax.control.subsets import Budget, Choice, choose_ramps, net_of, warm
from apparate_jax.control.thresholds import budget_for, tune_first
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.ramps.train import Validation

BUDGET_FRAC = 0.85
"""Share of the constraint that sets are compared at: what the guard lets through on average."""


class Options(NamedTuple):
    """What sets there are; does not change.

    Attributes:
        sites: Sites with a trained ramp, S of them.
        savings_ms: f32[S], what an exit at each saves.
        costs_ms: f64[S], what each adds to every answer.
        budgets: What the ramps of a set may add to an answer, and the memory they may take.
        max_ramps: Ramps in a set, at most.
        validation: Held-out samples, the first feedback.
    """

    sites: tuple[int, ...]
    savings_ms: NDArray[np.float32]
    costs_ms: NDArray[np.float64]
    budgets: tuple[Budget, ...]
    max_ramps: int
    validation: Validation


class Shadows(NamedTuple):
    """What is known of all ramps.

    Attributes:
        sites: Sites with a trained ramp, S of them: the columns of the window.
        window: Feedback of shadow batches.
        answers: Answers since the start.
        seen: Those among them that were part of shadow batches.
        since: Answers since the last choice.
    """

    sites: tuple[int, ...]
    window: windows.Window
    answers: int = 0
    seen: int = 0
    since: int = 0


def make_options(
    config: ControlConfig,
    validation: Validation,
    latency: LatencyModel,
    placement: PlacementConfig,
    num_bytes: Mapping[int, int] | None = None,
) -> Options:
    """What sets may be chosen from; compiles the search.

    Args:
        config: Settings.
        validation: Names the trained ramps.
        latency: What they cost and save.
        placement: The budgets.
        num_bytes: Memory of each site's ramp; none is counted without it.
    """
    sites = list(validation.sites)
    batch = latency.batches[0]
    savings = [latency.savings_ms((site,), batch)[0] for site in sites]
    added = [latency.costs_ms(b)[sites] / latency.vanilla_ms(b) for b in latency.batches]
    budgets = [Budget(np.mean(added, axis=0).tolist(), placement.ramp_budget)]
    if num_bytes is not None:
        most = placement.memory_budget_mb * 2**20
        budgets.append(Budget([float(num_bytes[site]) for site in sites], most))
    warm(config.shadow_window, len(sites), _most(config), placement.max_ramps)
    options = Options(
        validation.sites,
        np.minimum.accumulate(savings).astype(np.float32),
        latency.costs_ms(batch)[sites],
        tuple(budgets),
        placement.max_ramps,
        validation,
    )
    nothing = windows.init(config.shadow_window, len(sites))
    for ramps in range(1, min(placement.max_ramps, len(sites)) + 1):
        _thresholds(config, options, nothing, list(range(ramps)), options.savings_ms)
    return options


def start(config: ControlConfig, options: Options) -> Shadows:
    """The held-out samples, and nothing else yet."""
    given = options.validation
    window = windows.init(config.shadow_window, len(options.sites))
    window = windows.push(window, windows.Rows(given.errors, given.agrees, 1))
    return Shadows(options.sites, window)


def observe(shadows: Shadows, observation: Observation) -> Shadows:
    """Take in a batch.

    Raises:
        ConfigError: A shadow batch of other ramps.
    """
    samples = len(observation.exits)
    shadow = observation.shadow
    window, seen = shadows.window, shadows.seen
    if shadow is not None:
        if shadow.sites != shadows.sites:
            raise ConfigError(
                f"a shadow batch of sites {list(shadow.sites)}, expected {list(shadows.sites)}"
            )
        rows = windows.Rows(shadow.errors, shadow.agrees, observation.shape)
        window, seen = windows.push(window, rows), seen + samples
    return shadows._replace(
        window=window,
        answers=shadows.answers + samples,
        seen=seen,
        since=shadows.since + samples,
    )


def shadow_every(config: ControlConfig, shadows: Shadows) -> int:
    """Batches between two shadow batches: few while less is known than a choice needs.

    Where batches are of one input, as of a camera, it would take thousands of answers otherwise.
    """
    known = shadows.window.filled >= config.min_shadow
    return config.shadow_every if known else min(EAGER, config.shadow_every)


def forget(shadows: Shadows, fresh: int) -> Shadows:
    """Drop what is older than the last ``fresh`` answers: ramps are not what they were."""
    share = shadows.seen / max(shadows.answers, 1)
    return shadows._replace(window=windows.last(shadows.window, round(fresh * share)))


def choose(
    config: ControlConfig, options: Options, shadows: Shadows, current: tuple[int, ...]
) -> tuple[Shadows, tuple[int, ...], str]:
    """The set that is to be active, when a choice is due.

    Args:
        config: Settings.
        options: What may be chosen.
        shadows: What is known of all ramps.
        current: The active set.

    Returns:
        What is known, the set (the current one unless another is worth it), and why it changed.
    """
    if shadows.since < config.adjust_every:
        return shadows, current, ""
    window = windows.settle(shadows.window)
    shadows = shadows._replace(window=window, since=0)
    if window.filled < config.min_shadow:
        return shadows, current, ""
    found, hold = _search(config, options, window, current)
    gain, error = _advantage(config, options, window, found, hold, current)
    now = found.net - gain
    if gain <= max(error, config.hysteresis * abs(now)):
        return shadows, current, ""
    sites = tuple(options.sites[c] for c in found.columns)
    why = (
        f"ramps at sites {list(current)} give way to sites {list(sites)}: "
        f"on {window.filled} samples of shadow batches they save {found.net:.3g} ms instead of "
        f"{now:.3g} ms, costs and what others are saved included"
    )
    return shadows, sites, why


def seed(shadows: Shadows, sites: tuple[int, ...], size: int) -> windows.Window:
    """A window for another set of ramps, with what shadow batches said of them."""
    kept = windows.last(shadows.window, size)
    columns = [shadows.sites.index(site) for site in sites]
    rows = slice(kept.filled)
    window = windows.init(size, len(sites))
    for shape in np.unique(kept.shapes[rows]).tolist():
        of_shape = np.flatnonzero(kept.shapes[rows] == shape)
        part = windows.Rows(
            kept.errors[of_shape][:, columns], kept.agrees[of_shape][:, columns], shape
        )
        window = windows.push(window, part)
    return windows.settle(window)


def _search(
    config: ControlConfig, options: Options, window: windows.Window, current: tuple[int, ...]
) -> tuple[Choice, int | None]:
    """The best set, and the column behind which batches are held with it.

    Which set is best depends on where batches are held, and that on the set: it is searched once
    for the place that suits the current one, and once for the place that suits what that found.
    """
    columns = [options.sites.index(site) for site in current]
    thresholds = _thresholds(config, options, window, columns, options.savings_ms)
    found: list[tuple[Choice, int | None]] = []
    while len(found) < (2 if config.others else 1):
        hold = _hold(options, window, columns, thresholds)
        if found and hold == found[0][1]:
            break
        best = choose_ramps(
            window.errors,
            window.agrees,
            others.with_others(options.savings_ms, hold, config.others),
            options.costs_ms,
            window.filled,
            _limit(config, window.filled),
            max_ramps=options.max_ramps,
            budgets=options.budgets,
            budget=_most(config),
        )
        found.append((best, hold))
        columns, thresholds = list(best.columns), best.thresholds
    return max(found, key=lambda one: one[0].net)


def _hold(
    options: Options,
    window: windows.Window,
    columns: list[int],
    thresholds: NDArray[np.float32],
) -> int | None:
    """The column behind which a set is held; None where nobody leaves."""
    left = others.left_by(window.errors[: window.filled, columns], thresholds)
    hold = others.hold_of(options.savings_ms[columns], left)
    return None if hold is None else columns[hold]


def _advantage(
    config: ControlConfig,
    options: Options,
    window: windows.Window,
    found: Choice,
    hold: int | None,
    current: tuple[int, ...],
) -> tuple[float, float]:
    """By how much a set is worth more than the current one per sample, and its standard error, ms.

    Each with what it saves others, held where that suits it.
    """
    rows = slice(window.filled)
    given = (window.errors[rows], window.agrees[rows])
    columns = [options.sites.index(site) for site in current]
    thresholds = _thresholds(config, options, window, columns, options.savings_ms)
    own = _hold(options, window, columns, thresholds)
    worth = others.with_others(options.savings_ms, own, config.others)
    thresholds = _thresholds(config, options, window, columns, worth)
    old = net_of(*given, worth, options.costs_ms, columns, thresholds).gains
    worth = others.with_others(options.savings_ms, hold, config.others)
    new = net_of(*given, worth, options.costs_ms, found.columns, found.thresholds).gains
    difference = new - old
    return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))


def _thresholds(
    config: ControlConfig,
    options: Options,
    window: windows.Window,
    columns: list[int],
    worth_ms: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The best thresholds of a set on a window, for what exits at all sites are worth."""
    if not columns:
        return np.zeros(0, np.float32)
    return tune_first(
        np.ascontiguousarray(window.errors[:, columns]),
        np.ascontiguousarray(window.agrees[:, columns]),
        worth_ms[columns],
        window.filled,
        BUDGET_FRAC * config.max_disagreement,
        "auto",
    ).thresholds


def _limit(config: ControlConfig, samples: int) -> int:
    """Wrong answers that a set may give on a window."""
    return budget_for(BUDGET_FRAC * config.max_disagreement, samples)


def _most(config: ControlConfig) -> int:
    return _limit(config, config.shadow_window)
