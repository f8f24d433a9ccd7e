"""The engine's queue on the virtual clock: who arrives, waits, is refused, and leaves in a batch.

The policy is the engine's own. Where every request is like the others (``immediate``, no deadlines,
no levels, nobody refused) it only depends on how many wait, and batches are stretches of the
arrivals; else requests stand in the engine's own line.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.replay_config import ReplayConfig
from apparate_jax.bench.replay_result import FULL, LATE, PASSED, UNREACHABLE, Refused
from apparate_jax.control.latency import LatencyModel
from apparate_jax.errors import QueueFullError
from apparate_jax.serve.line import Line
from apparate_jax.serve.policies import Decision, Device, Entry, untimed
from apparate_jax.serve.timing import Forecast

Sites = tuple[int, ...]
Members = range | NDArray[np.int64]
"""Requests of a batch, by their position among the arrivals."""


class Formed(NamedTuple):
    """A batch as it leaves the queue.

    Attributes:
        members: Its requests.
        shape: What it is padded to.
        formed_s: When.
        waiting: Requests that wait behind it.
    """

    members: Members
    shape: int
    formed_s: float
    waiting: int


class Refusal(NamedTuple):
    """A request that got no answer: when it was told, and why (an index into ``REASONS``)."""

    request: int
    at_s: float
    reason: int


class Queue(Protocol):
    """Where requests wait."""

    refused: list[Refusal]

    def form(self, free_s: float, sites: Sites) -> Formed | None:
        """The next batch, once a place on the device is free; None if nobody comes any more.

        Args:
            free_s: When a place is.
            sites: Active ramps.

        Raises:
            QueueFullError: More requests wait than the queue holds, and it is not to refuse.
        """
        ...

    def coming_s(self, from_s: float) -> float:
        """From when on somebody waits, ``from_s`` if somebody does then; infinite if never."""
        ...

    def begin(self, formed: Formed, plan: Sites, ran: Sites, end_s: float, *, shadow: bool) -> None:
        """What the batch runs, and when it will really have ended."""
        ...


def queue_of(
    arrivals: list[float],
    config: ReplayConfig,
    latency: LatencyModel,
    deadlines_s: Sequence[float] | None = None,
    priorities: Sequence[int] | None = None,
) -> Queue:
    """The queue that these requests wait in.

    Args:
        arrivals: Ascending, seconds.
        config: Settings.
        latency: How long batches take, by the profile.
        deadlines_s: When each answer is due; None leaves that to the settings.
        priorities: Level of each request; None is the default level.
    """
    alike = deadlines_s is None and priorities is None and not config.refuse
    if alike and config.engine.batching.policy == "immediate":
        return Stretches(arrivals, config, latency)
    batching = config.engine.batching
    after_s = batching.due_after_s
    due = [at_s + after_s for at_s in arrivals] if deadlines_s is None else deadlines_s
    levels = [batching.default_priority] * len(arrivals) if priorities is None else priorities
    entries = [Arrival(*e) for e in zip(range(len(arrivals)), arrivals, due, levels, strict=True)]
    return Lined(entries, config, latency)


class _Alike:
    """So many requests, none of which is unlike the others."""

    __slots__ = ("count",)
    dated = 0

    def __init__(self) -> None:
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Entry]:
        raise AssertionError("nobody is to be told apart")


class Stretches:
    """Requests that are taken in the order of arrival, as many as wait."""

    def __init__(self, arrivals: list[float], config: ReplayConfig, latency: LatencyModel) -> None:
        self.refused: list[Refusal] = []
        self._arrivals = arrivals
        self._head = 0
        self._limit = config.engine.queue_size
        self._form = config.engine.batching.make().form
        self._timing = untimed(latency.batches)
        self._device = Device()
        self._waiting = _Alike()

    def form(self, free_s: float, sites: Sites) -> Formed | None:
        """The next batch."""
        del sites
        first, arrivals, limit = self._head, self._arrivals, self._limit
        if first == len(arrivals):
            return None
        formed_s = max(free_s, arrivals[first])
        stop = bisect_right(arrivals, formed_s, first, min(first + limit + 1, len(arrivals)))
        self._waiting.count = waiting = stop - first
        if waiting > limit:
            raise _full(limit, formed_s)
        size, _, shape, _ = self._form(self._waiting, formed_s, self._device, self._timing)
        self._head = first + size
        return Formed(range(first, self._head), shape, formed_s, waiting - size)

    def coming_s(self, from_s: float) -> float:
        """From when on somebody waits."""
        left = self._head < len(self._arrivals)
        return max(from_s, self._arrivals[self._head]) if left else math.inf

    def begin(self, formed: Formed, plan: Sites, ran: Sites, end_s: float, *, shadow: bool) -> None:
        """Nobody asks what is on the device."""


class Arrival(NamedTuple):
    """A request as the policy sees it, and which one it is."""

    request: int
    arrived_s: float
    deadline_s: float
    priority: int


class Lined:
    """Requests in the engine's own line."""

    def __init__(self, entries: list[Arrival], config: ReplayConfig, latency: LatencyModel) -> None:
        engine = config.engine
        self.refused: list[Refusal] = []
        self._entries = entries
        self._next = 0
        self._refuse = config.refuse
        self._limit = engine.queue_size
        self._policy = engine.batching.make()
        self._line: Line[Arrival] = Line(
            engine.batching.priority_levels, by_deadline=self._policy.timed
        )
        self._forecast = Forecast(
            latency.batches,
            engine.max_in_flight,
            latency if self._policy.timed else None,
            engine.batching.slo_quantile,
        )
        self._ends: deque[float] = deque()
        self._formed_s = -math.inf

    def form(self, free_s: float, sites: Sites) -> Formed | None:
        """The next batch; never before the one that was formed last."""
        at_s = max(free_s, self._formed_s)
        while True:
            self._arrive(at_s, sites)
            coming_s = self._next_s()
            if not self._line.count:
                if coming_s == math.inf:
                    return None
                at_s = coming_s
                continue
            decision = self._policy.form(self._line, at_s, *self._forecast.look(at_s, sites))
            if not decision.size:
                at_s = min(decision.until_s, coming_s)
                continue
            members = self._leave(decision, at_s)
            if len(members):
                self._formed_s = at_s
                return Formed(members, decision.shape, at_s, self._line.count)

    def coming_s(self, from_s: float) -> float:
        """From when on somebody waits."""
        return from_s if self._line.count else max(from_s, self._next_s())

    def begin(self, formed: Formed, plan: Sites, ran: Sites, end_s: float, *, shadow: bool) -> None:
        """What is on the device, by the profile, and when it really ends."""
        self._ends.append(end_s)
        self._forecast.begin(formed.formed_s, len(formed.members), plan, ran, shadow=shadow)

    def _next_s(self) -> float:
        left = self._next < len(self._entries)
        return self._entries[self._next].arrived_s if left else math.inf

    def _arrive(self, until_s: float, sites: Sites) -> None:
        """Everybody who comes until then."""
        while self._next_s() <= until_s:
            entry = self._entries[self._next]
            self._next += 1
            self._pass(entry.arrived_s)
            self._join(entry, sites)
        self._pass(until_s)

    def _pass(self, now_s: float) -> None:
        """Batches end."""
        while self._ends and self._ends[0] <= now_s:
            self._forecast.end(self._ends.popleft())

    def _join(self, entry: Arrival, sites: Sites) -> None:
        now_s = entry.arrived_s
        if self._line.count >= self._limit:
            for passed in self._line.pop_passed(now_s):
                self.refused.append(Refusal(passed.request, now_s, PASSED))
        if self._line.count >= self._limit:
            if not self._refuse:
                raise _full(self._limit, now_s)
            self.refused.append(Refusal(entry.request, now_s, FULL))
        elif self._admits(entry, now_s, sites):
            self._line.add(entry)
        else:
            self.refused.append(Refusal(entry.request, now_s, UNREACHABLE))

    def _admits(self, entry: Arrival, now_s: float, sites: Sites) -> bool:
        if self._policy.admit is None:
            return True
        self._forecast.came(now_s)
        return self._policy.admit(self._line, entry, now_s, *self._forecast.look(now_s, sites))

    def _leave(self, decision: Decision, now_s: float) -> NDArray[np.int64]:
        leaving = self._line.pop(decision.size)
        late = frozenset(decision.late)
        for position in decision.late:
            entry = leaving[position]
            reason = PASSED if entry.deadline_s < now_s else LATE
            self.refused.append(Refusal(entry.request, now_s, reason))
        taken = [entry.request for i, entry in enumerate(leaving) if i not in late]
        return np.asarray(taken, np.int64)


def _full(limit: int, at_s: float) -> QueueFullError:
    return QueueFullError(
        f"more than {limit} requests wait after {at_s:.1f} s: the system falls behind the "
        "arrivals; take a lower rate, or a longer queue"
    )


def refused_of(refusals: list[Refusal]) -> Refused:
    """Refusals as arrays, in the order of their requests."""
    table = np.asarray(sorted(refusals), np.float64).reshape(-1, 3)
    return Refused(table[:, 0].astype(np.int64), table[:, 1], table[:, 2].astype(np.int64))
