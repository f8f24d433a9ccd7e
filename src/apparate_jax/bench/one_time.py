"""Thresholds tuned once, as early-exit systems before Apparate have them, or on the latest batches.

BranchyNet and DeeBERT choose thresholds on a sample and never again: one for all ramps, or one for
each. The last policy here tunes exactly on the past batches and trusts it: what feedback is worth
without a guard.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.recording import Recording
from apparate_jax.control import window as windows
from apparate_jax.control.interface import Controller, Info, Observation
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.thresholds import (
    budget_for,
    evaluate_thresholds,
    tune_first,
    tune_thresholds,
)
from apparate_jax.core import ExitPlan

LARGEST_BUDGET = 200
"""Wrong answers that a search allows at most; samples are thinned out evenly where it is more."""
RETUNE_EVERY = 5
"""Batches between two tunings on the past ones."""

Sites = tuple[int, ...]


def shared_threshold(
    errors: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    savings: NDArray[np.float32],
    max_disagreement: float,
) -> float:
    """The one threshold for all ramps that saves most within the constraint. Exact.

    As a threshold rises past a sample's error at a ramp, below those at all earlier ramps, the
    sample moves to that ramp: all these steps in order give every threshold's saving.

    Args:
        errors: f32[N, R]; NaN never exits.
        agrees: bool[N, R].
        savings: f32[R], ms; not increasing along the ramps.
        max_disagreement: Share of answers that may differ, 0..1.

    >>> errors = np.float32([[0.4, 0.1], [0.2, 0.3]])
    >>> agrees = np.array([[False, True], [True, True]])
    >>> round(shared_threshold(errors, agrees, np.float32([5, 2]), 0.0), 3)
    0.4
    """
    values, gained, wronged = _steps(errors, agrees, savings)
    order = np.argsort(values, kind="stable")
    values = values[order]
    gain, wrong = np.cumsum(gained[order]), np.cumsum(wronged[order])
    following = np.append(values[1:], np.float32(1.0))
    allowed = (following > values) & (wrong <= budget_for(max_disagreement, len(errors)))
    if not allowed.any():
        return 0.0
    best = int(np.argmax(np.where(allowed, gain, -np.inf)))
    return float(following[best]) if gain[best] > 0 else 0.0


def _steps(
    errors: NDArray[np.float32], agrees: NDArray[np.bool_], savings: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Errors at which a sample moves to an earlier ramp, what that saves, and wrong answers."""
    samples, ramps = errors.shape
    table = np.where(np.isnan(errors), np.float32(np.inf), errors)
    before = np.full((samples, ramps), np.inf, np.float32)
    before[:, 1:] = np.minimum.accumulate(table, axis=1)[:, :-1]
    gains = np.append(np.asarray(savings, np.float64), 0.0)
    wrong = np.append(~agrees, np.zeros((samples, 1), np.bool_), axis=1).astype(np.int64)
    left_at = np.full(samples, ramps)
    steps = []
    for ramp in reversed(range(ramps)):
        rows = np.flatnonzero(table[:, ramp] < before[:, ramp])
        at = left_at[rows]
        steps.append(
            (table[rows, ramp], gains[ramp] - gains[at], wrong[rows, ramp] - wrong[rows, at])
        )
        left_at[rows] = ramp
    values, gained, wronged = (np.concatenate(column) for column in zip(*steps, strict=True))
    return values, gained, wronged


class Data(NamedTuple):
    """What thresholds of a set of ramps are tuned on: errors, agreement and savings."""

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    savings: NDArray[np.float32]


def data_of(sample: Recording, sites: Sites) -> Data:
    """What a recording says of a set of ramps, and what they save at the smallest batch."""
    columns = [sample.ramps.index(site) for site in sites]
    latency = LatencyModel(sample.profile)
    savings = np.asarray(latency.savings_ms(sites, latency.batches[0]), np.float32)
    return Data(sample.errors[:, columns], sample.agrees[:, columns], savings)


def plan_shared(sample: Recording, sites: Sites, eps: float) -> ExitPlan:
    """All of ``sites`` with the one threshold that is best on a sample."""
    return ExitPlan(sites, (shared_threshold(*data_of(sample, sites), eps),) * len(sites))


def plan_each(sample: Recording, sites: Sites, eps: float) -> ExitPlan:
    """All of ``sites``, each with the threshold that is best on a sample."""
    if not sites:  # no ramp fits the budget
        return ExitPlan()
    data = data_of(sample, sites)
    every = int(np.ceil(max(1, budget_for(eps, len(sample))) / LARGEST_BUDGET))
    found = tune_thresholds(data.errors[::every], data.agrees[::every], data.savings, eps, "auto")
    return ExitPlan(sites, tuple(found.thresholds.tolist()))


def plan_best(sample: Recording, sites: Sites, eps: float) -> ExitPlan:
    """The better of both on a sample, of those that keep the constraint there."""
    data = data_of(sample, sites)
    best, most = ExitPlan.closed(sites), 0.0
    for plan in (plan_shared(sample, sites, eps), plan_each(sample, sites, eps)):
        seen = evaluate_thresholds(*data, plan.thresholds)
        kept = round(seen.disagreement * len(sample)) <= budget_for(eps, len(sample))
        if kept and seen.saving > most:
            best, most = plan, seen.saving
    return best


class Past(NamedTuple):
    """What the policy of the past batches remembers.

    Attributes:
        plan: In force.
        batches: Feedback of the last ones, oldest first.
        since: Batches since the last tuning.
    """

    plan: ExitPlan
    batches: tuple[windows.Rows, ...] = ()
    since: int = 0


def past(recording: Recording, sites: Sites, eps: float, batches: int) -> Controller:
    """Thresholds tuned exactly on the past ``batches`` batches, anew every few; no guard.

    Args:
        recording: Its profile says what exits save.
        sites: Active ramps; they stay.
        eps: Share of answers that may differ.
        batches: How many.
    """
    latency = LatencyModel(recording.profile)
    savings = np.asarray(latency.savings_ms(sites, latency.batches[0]), np.float32)
    update = partial(_update_past, savings, eps, batches, batches * latency.batches[-1])
    first = Past(ExitPlan.closed(sites))
    return Controller(lambda: first, update, lambda state: state.plan)


def _update_past(
    savings: NDArray[np.float32],
    eps: float,
    batches: int,
    size: int,
    state: Past,
    observation: Observation,
) -> tuple[ExitPlan, Past, Info]:
    if not observation.sites or observation.sites != state.plan.sites:
        return state.plan, state, Info()
    rows = windows.Rows(observation.errors, observation.agrees, observation.shape)
    state = Past(state.plan, (*state.batches, rows)[-batches:], state.since + 1)
    if len(state.batches) < batches or state.since < RETUNE_EVERY:
        return state.plan, state, Info()
    window: Any = windows.init(size, len(savings))
    for one in state.batches:
        window = windows.push(window, one)
    window = windows.settle(window)
    tuning = tune_first(window.errors, window.agrees, savings, window.filled, eps)
    plan = ExitPlan(state.plan.sites, tuple(tuning.thresholds.tolist()))
    return plan, Past(plan, state.batches), Info(tuning=tuning)
