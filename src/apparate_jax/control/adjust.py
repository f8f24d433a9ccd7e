"""Which ramps are active: chosen with their thresholds on what shadow batches say of every ramp.

The paper guesses at inactive ramps by bounds and trials (Apparate, SOSP'24, section 3.3, and
:mod:`apparate_jax.control.paper`). A shadow batch asks them: it runs as usual, and once its answers
have left, the other heads run on the values that it computed anyway. On a window of such samples
the set and its thresholds are chosen together, every set of at most ``max_ramps`` ramps compared,
within the ramp budget and the memory budget.

Another set takes over only if it saves more by a margin and by more than one standard error of the
difference, sample by sample: sets that are alike do not flap.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control import window as windows
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import Observation
from apparate_jax.control.latency import LatencyModel
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
        _thresholds(config, options, nothing, list(range(ramps)))
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
    found = choose_ramps(
        window.errors,
        window.agrees,
        options.savings_ms,
        options.costs_ms,
        window.filled,
        _limit(config, window.filled),
        max_ramps=options.max_ramps,
        budgets=options.budgets,
        budget=_most(config),
    )
    gain, error = _advantage(config, options, window, found, current)
    now = found.net - gain
    if gain <= max(error, config.hysteresis * abs(now)):
        return shadows, current, ""
    sites = tuple(options.sites[c] for c in found.columns)
    why = (
        f"ramps at sites {list(current)} give way to sites {list(sites)}: "
        f"on {window.filled} samples of shadow batches they save {found.net:.3g} ms instead of "
        f"{now:.3g} ms, costs included"
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


def _advantage(
    config: ControlConfig,
    options: Options,
    window: windows.Window,
    found: Choice,
    current: tuple[int, ...],
) -> tuple[float, float]:
    """By how much a set saves more than the current one per sample, and its standard error, ms."""
    rows = slice(window.filled)
    data = (window.errors[rows], window.agrees[rows], options.savings_ms, options.costs_ms)
    columns = [options.sites.index(site) for site in current]
    thresholds = _thresholds(config, options, window, columns)
    new = net_of(*data, found.columns, found.thresholds).gains
    old = net_of(*data, columns, thresholds).gains
    difference = new - old
    return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))


def _thresholds(
    config: ControlConfig, options: Options, window: windows.Window, columns: list[int]
) -> NDArray[np.float32]:
    """The best thresholds of a set on a window."""
    if not columns:
        return np.zeros(0, np.float32)
    return tune_first(
        np.ascontiguousarray(window.errors[:, columns]),
        np.ascontiguousarray(window.agrees[:, columns]),
        options.savings_ms[columns],
        window.filled,
        BUDGET_FRAC * config.max_disagreement,
        "auto",
    ).thresholds


def _limit(config: ControlConfig, samples: int) -> int:
    """Wrong answers that a set may give on a window."""
    return budget_for(BUDGET_FRAC * config.max_disagreement, samples)


def _most(config: ControlConfig) -> int:
    return _limit(config, config.shadow_window)
