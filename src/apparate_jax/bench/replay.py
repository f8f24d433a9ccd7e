"""Replay: the engine as a discrete-event simulation of a recorded stream, on a virtual clock.

The policy, the batches, the load policy and the rules of leaving are the engine's own; only time
is a model of it. Requests arrive when they arrive. At most ``max_in_flight`` batches are under way;
what a batch holds is decided by the engine's batching policy when a slot is free for it, from those
that wait then (:mod:`apparate_jax.bench.forming`), and the device runs batches one after another. A
ramp's answer is there ``LatencyModel.answers_ms`` after the device took the batch up. Whoever's
recorded error is below the threshold in force at that moment leaves there; the controller sees the
batch once it has run to its end, which of a deferred one is later. A shadow batch runs the other
heads after its own answers have left, and the next batch waits for them unless it is deferred.

Two more things of the profile are measured, not assumed: what handling by the engine adds before
an idle device can begin (while it is busy, that is hidden behind the batch before), and how single
runs spread around their median, from which each batch draws a factor, by the seed.

Pure and deterministic: no clock, no threads. Times within are float seconds from the first
arrival's zero; hours of traffic take seconds (docs/benchmarks.md).

Sharp edges: a set of ramps costs the same whether or not its merged stages are compiled; batches
spread independently, though a busy neighbour slows many in a row (:class:`Pace`).
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.comparison import Answers, Decisions
from apparate_jax.bench.forming import Formed, Members, Queue, queue_of, refused_of
from apparate_jax.bench.leaving import Stream
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.replay_batch import Batch, Kind, Rest, Seen, Sites, pieces_of
from apparate_jax.bench.replay_config import Pace, ReplayConfig
from apparate_jax.bench.replay_result import Batches, PlanChange, ReplayResult
from apparate_jax.bench.workload import Times
from apparate_jax.control.interface import Controller, Observation, Shadow
from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError
from apparate_jax.serve.choice import Chooser
from apparate_jax.serve.engine_config import BatchingConfig

__all__ = ["Pace", "ReplayConfig", "replay", "saturate"]


def replay(
    recording: Recording,
    controller: Controller,
    arrivals: Times,
    config: ReplayConfig | None = None,
    latency: LatencyModel | None = None,
    *,
    deadlines_s: Times | None = None,
    priorities: Sequence[int] | None = None,
) -> ReplayResult:
    """Replay a recorded stream under a policy.

    Args:
        recording: What ramps and model answer. Rows are used in order, from the start again when
            they run out.
        controller: The policy; ``fixed(ExitPlan())`` is the original model.
        arrivals: f64[n], ascending, in seconds.
        config: Settings.
        latency: How long batches take; the recording's profile unless given.
        deadlines_s: f64[n], when each answer is due; by the settings unless given.
        priorities: Level of each request; the default level unless given.

    Raises:
        QueueFullError: More requests wait than the queue holds, and it is not to refuse any.
        ConfigError: Arrivals that are not ascending, a plan with sites that have no ramp, or none
            of the requests was answered.
    """
    config = config or ReplayConfig()
    if len(arrivals) == 0 or not (np.diff(arrivals) >= 0).all():
        raise ConfigError("arrivals must be at least one time, ascending")
    latency = latency or LatencyModel(recording.profile)
    due = None if deadlines_s is None else deadlines_s.tolist()
    queue = queue_of(arrivals.tolist(), config, latency, due, priorities)
    run = _Run(Stream(recording, config.first_row), controller, queue, config, latency)
    run.draws = np.random.default_rng(config.seed).random(len(arrivals)).tolist()
    while run.step():
        pass
    return run.result(arrivals)


def saturate(
    recording: Recording,
    controller: Controller,
    requests: int,
    config: ReplayConfig | None = None,
    latency: LatencyModel | None = None,
) -> ReplayResult:
    """Replay with a queue that is never empty: all requests wait from the start.

    Args:
        recording: As for :func:`replay`.
        controller: The policy.
        requests: How many.
        config: Settings; the queue is as long as it must be, and whoever waits is taken.
        latency: As for :func:`replay`.
    """
    config = config or ReplayConfig()
    queue_size = max(requests, config.engine.queue_size)
    engine = replace(config.engine, queue_size=queue_size, batching=BatchingConfig())
    unbounded = replace(config, engine=engine, refuse=False)
    return replay(recording, controller, np.zeros(requests), unbounded, latency)


@dataclass(slots=True)
class _Run:
    """The state of a replay. Mutable; everything it calls is pure."""

    stream: Stream
    controller: Controller
    queue: Queue
    config: ReplayConfig
    latency: LatencyModel
    state: Any = None
    plan: ExitPlan = field(default_factory=ExitPlan)
    decided: ExitPlan = field(default_factory=ExitPlan)
    due: deque[PlanChange] = field(default_factory=deque)
    slots: deque[float] = field(default_factory=deque)
    free_s: float = -math.inf
    left: int = 0
    deferred: deque[Rest] = field(default_factory=deque)
    batches: list[list[Any]] = field(default_factory=list)
    members: list[Members] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    offsets: dict[tuple[Sites, int, int], Kind] = field(default_factory=dict)
    draws: list[float] = field(default_factory=list)
    handling_s: float = 0.0
    hold_s: float = 0.0
    defer: int = 0
    chooser: Chooser = field(init=False)
    exits: list[NDArray[np.int32]] = field(default_factory=list)
    changes: list[PlanChange] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    decisions: Decisions = field(default_factory=Decisions)

    def __post_init__(self) -> None:
        self.state = self.controller.init()
        self.plan = self.decided = self.controller.plan(self.state)
        engine = self.config.engine
        self.slots.extend([0.0] * engine.max_in_flight)
        self.defer = engine.deferrals
        largest, depths = self.latency.batches[-1], self.stream.depths
        policy = self.config.load_policy
        self.chooser = Chooser(engine, policy, largest, depths, self.latency)
        self.handling_s = self.latency.profile.handling_ms / 1e3
        self.hold_s = self.latency.profile.hold_ms / 1e3

    def step(self) -> bool:
        """Form the next batch, run it, and let the controller see it; False if there is none."""
        formed = self.queue.form(self._use_time(self.slots.popleft()), self.plan.sites)
        if formed is None:
            return False
        batch = self._make_batch(formed)
        members = formed.members
        if isinstance(members, range):
            first, stop = members.start, members.stop
            stretch = self.stream.stretch(batch.sites, first, stop)
            rows: slice | NDArray[np.int64] = stretch.rows_of(first, stop)
        else:
            first, stop = int(members.min()), int(members.max()) + 1
            stretch = self.stream.stretch(batch.sites, first, stop)
            rows = members - stretch.first
        kind, offsets = self._run(batch)
        finish_s = batch.start_s + offsets[-1]
        self._apply(batch.start_s + offsets[0])
        if self._settled(batch, finish_s):
            exits = stretch.exits(self.plan.thresholds)[rows]
            self.left += (
                stretch.early(rows)
                if isinstance(rows, slice)
                else int(np.count_nonzero(exits < len(batch.sites)))
            )
        else:
            exits = self._leave(batch, offsets, stretch.errors[rows])
        self.exits.append(exits)
        self.kinds.append(kind)
        self.members.append(members)
        self.batches.append(
            [formed.formed_s, batch.start_s, finish_s, batch.size, formed.shape, batch.shadow]
        )
        seen = Seen(batch, stretch.errors[rows], stretch.agrees[rows], exits)
        if int(exits.max()) < batch.hold:
            self._defer(seen, offsets)
        else:
            self.free_s = batch.end_s
            self._observe(seen)
        self.slots.append(self.free_s)
        return True

    def _defer(self, seen: Seen, offsets: Sequence[float]) -> None:
        """Everybody is answered: the device is free, and the rest of the batch has time."""
        batch, factor = seen.batch, self.factors[-1]
        self.free_s = batch.start_s + offsets[batch.hold - 1] + self.hold_s
        stages_ms = self.latency.pieces_ms(batch.sites, batch.formed.shape, batch.hold)
        stages_s = [ms / 1e3 * factor for ms in stages_ms]
        if batch.shadow:
            stages_s.append(batch.end_s - batch.start_s - offsets[-1])
        whole_s = batch.end_s - self.free_s
        self.deferred.append(Rest(len(self.kinds), whole_s, pieces_of(stages_s), seen))
        seen.number = len(self.batches) - 1

    def _use_time(self, slot_s: float) -> float:
        """Run pieces of deferred batches while nobody waits; when the next batch may be formed."""
        at_s = max(slot_s, self.free_s)
        if not self.deferred or at_s >= (coming_s := self.queue.coming_s(slot_s)):
            return slot_s
        while self.deferred and at_s < coming_s:
            at_s = self.free_s = at_s + self.deferred[0].run_piece()
            if not self.deferred[0].pieces_s:
                self._end(self.deferred.popleft(), at_s)
        return at_s

    def _end(self, rest: Rest, at_s: float) -> None:
        """A deferred batch has run to its end."""
        rest.seen.batch.end_s = self.batches[rest.seen.number][2] = at_s
        self._observe(rest.seen)

    def _make_batch(self, formed: Formed) -> Batch:
        """Which ramps it runs, by the load that it sees."""
        self._apply(formed.formed_s)
        size = len(formed.members)
        waiting, now_s = formed.waiting, formed.formed_s
        sites, shadow, hold = self.chooser.next(self.plan, size, waiting, now_s)
        return Batch(formed, size, sites, shadow, hold)

    def _run(self, batch: Batch) -> tuple[int, list[float]]:
        """Run a batch: its kind, and from its start to each answer in seconds."""
        shape, formed_s, pace = batch.formed.shape, batch.formed.formed_s, self.config.pace
        kind, medians, spread = self._offsets(batch)
        start_s = max(formed_s + self.handling_s, self.free_s)
        begun = len(self.kinds) + 1
        cap = self.plan.exit_cap
        room = math.inf if cap is None else cap - self.left
        while self.deferred:
            rest = self.deferred[0]
            if room >= batch.size and begun - rest.begun <= self.defer:
                break
            room += rest.seen.batch.size
            start_s = self.free_s = start_s + rest.left_s
            self._end(self.deferred.popleft(), start_s)
        batch.start_s = start_s
        if pace is None:
            draw = int(self.draws[len(self.kinds)] * len(spread))
            factor = spread[draw] * self.latency.rest_factor((start_s - self.free_s) * 1e3)
        else:
            factor = pace.at(start_s)
        offsets = [after_s * factor for after_s in medians]
        shadow_s = self.latency.shadow_ms(batch.sites, shape) / 1e3 if batch.shadow else 0.0
        batch.end_s = start_s + offsets[-1] + shadow_s
        self.factors.append(factor)
        self.queue.begin(
            batch.formed, self.plan.sites, batch.sites, batch.end_s, shadow=batch.shadow
        )
        return kind, offsets

    def _offsets(self, batch: Batch) -> Kind:
        """What is known of batches of this kind."""
        sites, shape, hold = batch.sites, batch.formed.shape, batch.hold
        known = self.offsets.get((sites, shape, hold))
        if known is None:
            answers = np.maximum.accumulate(self.latency.answers_ms(sites, shape)) / 1e3
            answers[hold:] += self.hold_s if hold else 0.0
            spread = self.latency.profile.at(shape).spread or (1.0,)
            known = Kind(len(self.offsets), tuple(answers.tolist()), spread)
            self.offsets[sites, shape, hold] = known
        return known

    def _settled(self, batch: Batch, finish_s: float) -> bool:
        """Whether one set of thresholds is in force from its first answer to its last."""
        plan = self.plan
        return (
            plan.sites == batch.sites
            and (not self.due or self.due[0].at_s > finish_s)
            and (plan.exit_cap is None or self.left + batch.size <= plan.exit_cap)
        )

    def _leave(
        self, batch: Batch, offsets: Sequence[float], errors: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """Where each request leaves: ramp by ramp, with the plan in force at its answer."""
        ramps = len(batch.sites)
        exits = np.full(batch.size, ramps, np.int32)
        for position in range(ramps):
            self._apply(batch.start_s + offsets[position])
            plan = self.plan
            if plan.sites != batch.sites:
                continue
            below = errors[:, position] < np.float32(plan.thresholds[position])
            rows = np.flatnonzero((exits == ramps) & below)
            if plan.exit_cap is not None:
                rows = rows[: max(0, plan.exit_cap - self.left)]
            exits[rows] = position
            self.left += len(rows)
        return exits

    def _apply(self, at_s: float) -> None:
        """Bring plans into force that are due."""
        while self.due and self.due[0].at_s <= at_s:
            self.plan = self.due.popleft().plan

    def _observe(self, seen: Seen) -> None:
        batch = seen.batch
        self.chooser.saw(batch.sites, seen.exits)
        shadow = self._shadow(batch.formed.members) if batch.shadow else None
        shape = batch.formed.shape
        told = Observation(batch.sites, seen.errors, seen.agrees, seen.exits, shape, 0, shadow)
        plan, self.state, info = self.controller.update(self.state, told)
        self.decisions.count(plan, info)
        if info.events:
            self.events.extend((batch.end_s, event) for event in info.events)
        if plan is not self.decided and plan != self.decided:
            change = PlanChange(batch.end_s + self.config.control_delay_ms / 1e3, plan)
            self.decided = plan
            self.due.append(change)
            self.changes.append(change)

    def _shadow(self, members: Members) -> Shadow:
        if isinstance(members, range):
            return self.stream.shadow(members.start, members.stop)
        first = int(members.min())
        sites, errors, agrees = self.stream.shadow(first, int(members.max()) + 1)
        return Shadow(sites, errors[members - first], agrees[members - first])

    def result(self, arrivals: Times) -> ReplayResult:
        """Everything, as arrays, in the order of arrival.

        Raises:
            ConfigError: No request was answered.
        """
        if not self.batches:
            raise ConfigError(
                f"none of {len(arrivals)} requests could be answered in time: give a longer slo_ms"
            )
        formed, started, finished, size, shape, shadow = map(
            np.asarray, zip(*self.batches, strict=True)
        )
        served = _in_a_row(self.members)
        order = np.argsort(served, kind="stable")
        batch, requests = np.repeat(np.arange(len(size)), size)[order], served[order]
        left_at, after_s = self._left(np.asarray(self.kinds)[batch], order)
        sites = np.full(len(arrivals), self.stream.end, np.int32)
        sites[requests] = left_at
        released = started[batch] + after_s * np.asarray(self.factors)[batch]
        arrived = np.asarray(arrivals, np.float64)[requests]
        answers = Answers(
            latency_ms=(released - arrived) * 1e3,
            exits=left_at,
            right=self.stream.right(sites)[requests],
            shape=shape[batch].astype(np.int32),
            arrived_s=arrived,
        )
        return ReplayResult(
            answers,
            Batches(formed, started, finished, size, shape, shadow),
            tuple(self.changes),
            tuple(self.events),
            self.decided,
            self.decisions,
            requests,
            batch,
            refused_of(self.queue.refused),
        )

    def _left(
        self, kind: NDArray[np.int64], order: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """At which site each request left, and how long after its batch's start, in the median."""
        exits = np.concatenate(self.exits)[order]
        widest = max(len(sites) for sites, *_ in self.offsets) + 1
        after_s = np.zeros((len(self.offsets), widest))
        where = np.zeros((len(self.offsets), widest), np.int32)
        for (sites, *_), (row, offsets, _) in self.offsets.items():
            after_s[row, : len(offsets)] = offsets
            where[row, : len(offsets)] = (*sites, self.stream.end)
        return where[kind, exits], after_s[kind, exits]


def _in_a_row(members: Sequence[Members]) -> NDArray[np.int64]:
    """The requests of all batches, in the order in which they were served."""
    last = members[-1]
    if isinstance(last, range):  # stretches of the arrivals, and nobody is left out
        return np.arange(last.stop)
    return np.concatenate([np.asarray(batch, np.int64) for batch in members])
