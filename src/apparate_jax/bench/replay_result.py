"""What a replay gives: answers, the batches that they were in, and the plans that were in force."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.comparison import Answers, Decisions
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError

REASONS = ("queue full", "unreachable", "late", "passed")
"""Why a request got no answer: the queue was full; at submission its deadline could not be met by
the profile; or not any more when a batch was formed; or it passed while the request waited."""
FULL, UNREACHABLE, LATE, PASSED = range(len(REASONS))


class Refused(NamedTuple):
    """Requests that got an error instead of an answer, m of them, in order.

    Attributes:
        request: i64[m], which ones.
        at_s: f64[m], when they were told.
        reason: i64[m], index into :data:`REASONS`.
    """

    request: NDArray[np.int64]
    at_s: NDArray[np.float64]
    reason: NDArray[np.int64]

    def counts(self) -> dict[str, int]:
        """How many, by reason; those that happened."""
        counts = np.bincount(self.reason, minlength=len(REASONS)).tolist()
        return {name: count for name, count in zip(REASONS, counts, strict=True) if count}


class Batches(NamedTuple):
    """The batches of a replay, B of them, in order.

    Attributes:
        formed_s: f64[B], when it was decided what is in each.
        started_s: f64[B], when the device took it up.
        finished_s: f64[B], when the original model's answers were there.
        size: i64[B], requests in it.
        shape: i64[B], what it was padded to.
        shadow: bool[B], whether it ran all other heads too.
    """

    formed_s: NDArray[np.float64]
    started_s: NDArray[np.float64]
    finished_s: NDArray[np.float64]
    size: NDArray[np.int64]
    shape: NDArray[np.int64]
    shadow: NDArray[np.bool_]


class PlanChange(NamedTuple):
    """A plan that came into force, after the one before."""

    at_s: float
    plan: ExitPlan


class ReplayResult(NamedTuple):
    """What a replay gives.

    Attributes:
        answers: Of the n requests that got one, in the order in which they arrived.
        batches: That they were in.
        plans: Every change of the plan, in order.
        events: What the controller did, in words, and when in seconds.
        plan: In force at the end.
        decisions: Counts of what the controller did.
        requests: i64[n], which requests got an answer; all of them unless some were refused.
        batch: i64[n], which batch each of them was in.
        refused: The others.
    """

    answers: Answers
    batches: Batches
    plans: tuple[PlanChange, ...]
    events: tuple[tuple[float, str], ...]
    plan: ExitPlan
    decisions: Decisions
    requests: NDArray[np.int64]
    batch: NDArray[np.int64]
    refused: Refused

    @property
    def released_s(self) -> NDArray[np.float64]:
        """f64[n], when each answer was given."""
        released: NDArray[np.float64] = self.answers.arrived_s + self.answers.latency_ms / 1e3
        return released

    @property
    def throughput_rps(self) -> float:
        """Requests completed per second from the first batch's end to the last one's.

        Raises:
            ConfigError: There were fewer than two batches.
        """
        order = np.argsort(self.batches.finished_s, kind="stable")
        finished, size = self.batches.finished_s[order], self.batches.size[order]
        if len(finished) < 2:
            raise ConfigError(
                f"{size.sum()} requests made {len(finished)} batch, too few for a throughput: "
                "replay more requests"
            )
        return float(size[1:].sum() / (finished[-1] - finished[0]))
