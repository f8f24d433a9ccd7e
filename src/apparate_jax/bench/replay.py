"""Replay: the engine as a discrete-event simulation of a recorded stream, on a virtual clock.

The policy, the batches, the load policy and the rules of leaving are the engine's own; only time
is a model of it. Requests arrive when they arrive. At most ``max_in_flight`` batches are under way;
what a batch holds is decided when a slot is free for it, from those that wait then, and the device
runs batches one after another. A ramp's answer is there ``LatencyModel.answers_ms`` after the
device took the batch up. Whoever's recorded error is below the threshold in force at that moment
leaves there; the controller sees the batch once it has run to its end. A shadow batch runs the
other heads after its own answers have left, and the next batch waits for them.

Two more things of the profile are measured, not assumed: what handling by the engine adds before
an idle device can begin (while it is busy, that is hidden behind the batch before), and how single
runs spread around their median, from which each batch draws a factor, by the seed.

Pure and deterministic: no clock, no threads. Times within are float seconds from the first
arrival's zero; hours of traffic take seconds (docs/benchmarks.md).

Sharp edges: a set of ramps costs the same whether or not its merged stages are compiled; batches
spread independently, though a busy neighbour slows many in a row (:class:`Pace`).
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.comparison import Answers, Decisions
from apparate_jax.bench.leaving import Stream, Stretch
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.replay_result import Batches, PlanChange, ReplayResult
from apparate_jax.bench.workload import Times
from apparate_jax.control.interface import Controller, Observation
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import Load, LoadPolicy, by_worth, next_fill, shadow_due
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError, QueueFullError
from apparate_jax.serve.batching import batch_shape
from apparate_jax.serve.engine import EngineConfig

Sites = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """Settings of a replay; batch shapes are the profile's.

    Attributes:
        engine: Limits of the engine.
        load_policy: Which of the plan's ramps a batch runs, by the load that it sees.
        control_delay_ms: From a batch's end to the moment that what the controller made of it is in
            force.
        first_row: Row of the recording that the first request brings.
        seed: Of how single runs spread.
        pace: A device whose speed changes, instead of that spread; None for the profile's.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    load_policy: LoadPolicy = by_worth
    control_delay_ms: float = 0.0
    first_row: int = 0
    seed: int = 0
    pace: "Pace | None" = None

    def __post_init__(self) -> None:
        delay = self.control_delay_ms
        if not 0.0 <= delay < float("inf") or min(self.first_row, self.seed) < 0:
            raise ConfigError(
                f"control_delay_ms is {delay}, first_row {self.first_row} and seed {self.seed}, "
                "expected at least 0"
            )


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow the device is at what time: a neighbour who comes and goes, throttling by heat.

    Attributes:
        since_s: Ascending times; before the first its factor holds as well.
        factors: What the profile's times are multiplied by from each of them on.
    """

    since_s: tuple[float, ...]
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.since_s) == len(self.factors) or min(self.factors) <= 0:
            raise ConfigError(
                f"a pace of {len(self.since_s)} times and {len(self.factors)} factors: expected "
                "one factor above 0 per time, and at least one"
            )

    def at(self, time_s: float) -> float:
        """The factor of a batch that starts now."""
        return self.factors[max(0, bisect_right(self.since_s, time_s) - 1)]


def replay(
    recording: Recording,
    controller: Controller,
    arrivals: Times,
    config: ReplayConfig | None = None,
    latency: LatencyModel | None = None,
) -> ReplayResult:
    """Replay a recorded stream under a policy.

    Args:
        recording: What ramps and model answer. Rows are used in order, from the start again when
            they run out.
        controller: The policy; ``fixed(ExitPlan())`` is the original model.
        arrivals: f64[n], ascending, in seconds.
        config: Settings.
        latency: How long batches take; the recording's profile unless given.

    Raises:
        QueueFullError: More requests wait than the queue holds.
        ConfigError: Arrivals that are not ascending, or a plan with sites that have no ramp.
    """
    config = config or ReplayConfig()
    if len(arrivals) == 0 or not (np.diff(arrivals) >= 0).all():
        raise ConfigError("arrivals must be at least one time, ascending")
    latency = latency or LatencyModel(recording.profile)
    run = _Run(Stream(recording, config.first_row), controller, arrivals.tolist(), config, latency)
    while run.head < len(arrivals):
        run.step()
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
        config: Settings; the queue is as long as it must be.
        latency: As for :func:`replay`.
    """
    config = config or ReplayConfig()
    queue_size = max(requests, config.engine.queue_size)
    unbounded = replace(config, engine=replace(config.engine, queue_size=queue_size))
    return replay(recording, controller, np.zeros(requests), unbounded, latency)


class Kind(NamedTuple):
    """Batches of one set of ramps and one shape.

    Attributes:
        number: Of the kind.
        answers_s: From start to each answer, in the median: ascending seconds, the end last.
        spread: Factors of single runs, each as likely as the others.
    """

    number: int
    answers_s: tuple[float, ...]
    spread: tuple[float, ...]


@dataclass(slots=True)
class _Batch:
    """One batch: requests ``first`` to ``stop``, the ramps it runs, and when."""

    first: int
    stop: int
    shape: int
    sites: Sites
    formed_s: float
    shadow: bool
    start_s: float = 0.0
    end_s: float = 0.0


@dataclass(slots=True)
class _Run:
    """The state of a replay. Mutable; everything it calls is pure."""

    stream: Stream
    controller: Controller
    arrivals: list[float]
    config: ReplayConfig
    latency: LatencyModel
    head: int = 0
    state: Any = None
    plan: ExitPlan = field(default_factory=ExitPlan)
    decided: ExitPlan = field(default_factory=ExitPlan)
    due: deque[PlanChange] = field(default_factory=deque)
    slots: deque[float] = field(default_factory=deque)
    free_s: float = -math.inf
    since: int = 0
    fill: float = 0.0
    left: int = 0
    batches: list[tuple[float, float, float, int, int, bool]] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    offsets: dict[tuple[Sites, int], Kind] = field(default_factory=dict)
    draws: list[float] = field(default_factory=list)
    handling_s: float = 0.0
    exits: list[NDArray[np.int32]] = field(default_factory=list)
    changes: list[PlanChange] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    decisions: Decisions = field(default_factory=Decisions)
    takes: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.controller.init()
        self.plan = self.decided = self.controller.plan(self.state)
        self.slots.extend([0.0] * self.config.engine.max_in_flight)
        self.handling_s = self.latency.profile.handling_ms / 1e3
        self.draws = np.random.default_rng(self.config.seed).random(len(self.arrivals)).tolist()
        sizes = self.latency.batches
        self.takes = [batch_shape(max(k, 1), sizes) for k in range(sizes[-1] + 1)]

    def step(self) -> None:
        """Form the next batch, run it, and let the controller see it."""
        batch = self._form()
        stretch = self.stream.stretch(batch.sites, batch.first, batch.stop)
        kind, medians, spread = self._offsets(batch.sites, batch.shape)
        batch.start_s = start_s = max(batch.formed_s + self.handling_s, self.free_s)
        pace = self.config.pace
        draw = int(self.draws[len(self.kinds)] * len(spread))
        idle_ms = (start_s - self.free_s) * 1e3
        factor = (
            spread[draw] * self.latency.rest_factor(idle_ms) if pace is None else pace.at(start_s)
        )
        offsets = [after_s * factor for after_s in medians]
        finish_s = batch.start_s + offsets[-1]
        shadow_s = self.latency.shadow_ms(batch.sites, batch.shape) / 1e3 if batch.shadow else 0.0
        batch.end_s = self.free_s = finish_s + shadow_s
        self.slots.append(batch.end_s)
        self._apply(batch.start_s + offsets[0])
        rows = stretch.rows_of(batch.first, batch.stop)
        if self._settled(batch, finish_s):
            exits = stretch.exits(self.plan.thresholds)[rows]
            self.left += stretch.early(rows)
        else:
            exits = self._leave(batch, offsets, stretch.errors[rows])
        self.exits.append(exits)
        self.kinds.append(kind)
        self.factors.append(factor)
        self.batches.append(
            (
                batch.formed_s,
                batch.start_s,
                finish_s,
                batch.stop - batch.first,
                batch.shape,
                batch.shadow,
            )
        )
        self._observe(batch, stretch, rows, exits)

    def _form(self) -> _Batch:
        """Take what waits once a slot is free."""
        first, arrivals = self.head, self.arrivals
        formed_s = max(self.slots.popleft(), arrivals[first])
        limit = self.config.engine.queue_size
        waiting = bisect_right(arrivals, formed_s, first, min(first + limit + 1, len(arrivals)))
        waiting -= first
        if waiting > limit:
            raise QueueFullError(
                f"more than {limit} requests wait after {formed_s:.1f} s: the system falls behind "
                "the arrivals; take a lower rate, or a longer queue"
            )
        self._apply(formed_s)
        largest = len(self.takes) - 1
        take, shape = self.takes[min(waiting, largest)]
        self.head = first + take
        waiting -= take
        self.fill = next_fill(self.fill, take, largest)
        sites = self.config.load_policy(self.plan, Load(take, waiting, largest, self.fill))
        self.since += 1
        shadow = shadow_due(self.since, self.plan.shadow_every, waiting, largest)
        if shadow:
            self.since = 0
        return _Batch(first, self.head, shape, sites, formed_s, shadow)

    def _offsets(self, sites: Sites, shape: int) -> Kind:
        """What is known of batches of this kind."""
        known = self.offsets.get((sites, shape))
        if known is None:
            answers = np.maximum.accumulate(self.latency.answers_ms(sites, shape)) / 1e3
            spread = self.latency.profile.at(shape).spread or (1.0,)
            known = Kind(len(self.offsets), tuple(answers.tolist()), spread)
            self.offsets[sites, shape] = known
        return known

    def _settled(self, batch: _Batch, finish_s: float) -> bool:
        """Whether one set of thresholds is in force from its first answer to its last."""
        plan = self.plan
        return (
            plan.sites == batch.sites
            and (not self.due or self.due[0].at_s > finish_s)
            and (plan.exit_cap is None or self.left + batch.stop - batch.first <= plan.exit_cap)
        )

    def _leave(
        self, batch: _Batch, offsets: Sequence[float], errors: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """Where each request leaves: ramp by ramp, with the plan in force at its answer."""
        ramps = len(batch.sites)
        exits = np.full(batch.stop - batch.first, ramps, np.int32)
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

    def _observe(
        self, batch: _Batch, stretch: Stretch, rows: slice, exits: NDArray[np.int32]
    ) -> None:
        seen = Observation(
            batch.sites,
            stretch.errors[rows],
            stretch.agrees[rows],
            exits,
            batch.shape,
            0,
            self.stream.shadow(batch.first, batch.stop) if batch.shadow else None,
        )
        plan, self.state, info = self.controller.update(self.state, seen)
        self.decisions.count(plan, info)
        if info.events:
            self.events.extend((batch.end_s, event) for event in info.events)
        if plan is not self.decided and plan != self.decided:
            change = PlanChange(batch.end_s + self.config.control_delay_ms / 1e3, plan)
            self.decided = plan
            self.due.append(change)
            self.changes.append(change)

    def result(self, arrivals: Times) -> ReplayResult:
        """Everything, as arrays."""
        formed, started, finished, size, shape, shadow = map(
            np.asarray, zip(*self.batches, strict=True)
        )
        kind = np.repeat(np.asarray(self.kinds), size)
        exits = np.concatenate(self.exits)
        widest = max(len(sites) for sites, _ in self.offsets) + 1
        after_s = np.zeros((len(self.offsets), widest))
        where = np.zeros((len(self.offsets), widest), np.int32)
        for (sites, _), (row, offsets, _) in self.offsets.items():
            after_s[row, : len(offsets)] = offsets
            where[row, : len(offsets)] = (*sites, self.stream.end)
        factor = np.repeat(np.asarray(self.factors), size)
        released = np.repeat(started, size) + after_s[kind, exits] * factor
        left_at = where[kind, exits]
        answers = Answers(
            latency_ms=(released - arrivals) * 1e3,
            exits=left_at,
            right=self.stream.right(left_at),
            shape=np.repeat(shape, size).astype(np.int32),
            arrived_s=np.asarray(arrivals, np.float64),
        )
        return ReplayResult(
            answers,
            Batches(formed, started, finished, size, shape, shadow),
            tuple(self.changes),
            tuple(self.events),
            self.decided,
            self.decisions,
        )
