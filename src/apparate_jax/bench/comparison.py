"""Both systems on the same arrivals, live or replayed: answers, rounds, and what was decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control.interface import Info
from apparate_jax.core import BatchRecord, ExitPlan

SYSTEMS = ("vanilla", "apparate")
AGAIN = "vanilla_again"
"""The original model a second time: by how much equal systems differ on this machine."""


class Answers(NamedTuple):
    """What happened to the requests of one system in one phase, in order of completion.

    Attributes:
        latency_ms: f64[n].
        exits: i32[n], index of the site where the answer left, the number of sites at the end.
        right: bool[n], whether the answer equals the original's.
        shape: i32[n], batch shape that each was part of.
        arrived_s: f64[n].
    """

    latency_ms: NDArray[np.float64]
    exits: NDArray[np.int32]
    right: NDArray[np.bool_]
    shape: NDArray[np.int32]
    arrived_s: NDArray[np.float64]

    def part(self, rows: slice | NDArray[np.int64]) -> "Answers":
        """Some of them."""
        latency_ms, exits, right, shape, arrived_s = self
        return Answers(latency_ms[rows], exits[rows], right[rows], shape[rows], arrived_s[rows])


class Round(NamedTuple):
    """One round: the same arrivals to both systems.

    Attributes:
        throughput_rps: Per system (:data:`SYSTEMS`, perhaps :data:`AGAIN`), with a queue that is
            never empty.
        answers: Per system, at the stated load.
        first_input: Row of the data set that the round began with.
        order: The systems in their turn.
    """

    throughput_rps: dict[str, float]
    answers: dict[str, Answers]
    first_input: int
    order: tuple[str, ...]


@dataclass(slots=True)
class Decisions:
    """Counts of what the controller did."""

    tunings: int = 0
    stops: int = 0

    def count(self, plan: ExitPlan, info: Info) -> None:
        """Take note of one decision."""
        del plan
        self.tunings += info.tuning is not None
        self.stops += len(info.stopped)


class Comparison(NamedTuple):
    """Everything that a report is made of.

    Attributes:
        rounds: The measurements.
        rate_rps: Mean arrival rate.
        plan: The plan in force at the end.
        decisions: How often the controller changed the plan, and which ramps it stopped.
        outside: Answers of the early-answer system outside of the rounds: while throughput was
            measured, and while it settled.
    """

    rounds: tuple[Round, ...]
    rate_rps: float
    plan: ExitPlan
    decisions: Decisions
    outside: Answers


def answers_of(records: Sequence[BatchRecord], sites: int) -> Answers:
    """The answers of completed batches, of a model with so many sites, in order of arrival.

    Batches are completed in another order where some of them are deferred.
    """
    if not records:
        return no_answers()
    arrived = np.concatenate([r.arrived_s for r in records])
    released = np.concatenate([r.released_s for r in records])
    made = Answers(
        latency_ms=(released - arrived) * 1e3,
        exits=np.concatenate([np.array([*r.sites, sites], np.int32)[r.exits] for r in records]),
        right=np.concatenate([r.released_right for r in records]),
        shape=np.concatenate([np.full(len(r.exits), r.shape, np.int32) for r in records]),
        arrived_s=arrived,
    )
    return made.part(np.argsort(arrived, kind="stable"))


def no_answers() -> Answers:
    """Of a phase without requests."""
    empty, whole = np.empty(0), np.empty(0, np.int32)
    return Answers(empty, whole, np.empty(0, np.bool_), whole, empty)


def concatenate(parts: Sequence[Answers]) -> Answers:
    """Answers of several phases, one after the other."""
    return Answers(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
