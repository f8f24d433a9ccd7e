"""Which of the waiting requests make the next batch, and when: pure functions of what waits.

The engine drives a policy with real time, replay drives the same one on a virtual clock:

* **immediate**: as many as wait, up to the largest shape, as soon as the device can take them;
* **timeout** (TensorFlow Serving's batching): a batch leaves when it is full, or when its oldest
  request has waited so long;
* **slo** (Clockwork's, OSDI'20): every request has a deadline. By the measured profile the batch is
  the largest that still meets every deadline in it, and what can no more be met is rejected: at
  submission where the line ahead already says so, else when the batch is formed. Ours alone is that
  admission expects more to come at the rate of late, for otherwise an overloaded server goes on
  with batches of one.

What waits is in the order of the :class:`~apparate_jax.serve.line.Line`: by priority level (1 goes
first, as in Triton), inside a level first come, first served, or with ``slo`` the earliest deadline
first. A policy decides about the first of the line; a request whose deadline passed is dropped
without taking a place.

Sharp edges: lower levels get what higher ones leave; under a lasting overload they starve, and only
their deadlines end that. ``slo`` never holds a request back to fill a batch.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from apparate_jax.errors import ConfigError

TOLERANCE_S = 1e-6
"""A deadline is met by an answer that is late by no more than this."""

NEARLY = 1.1
"""A batch that takes up to so many times the least time per request is large enough."""


class Entry(Protocol):
    """A request, as a policy sees it; seconds of the engine's clock."""

    @property
    def arrived_s(self) -> float:
        """When it arrived."""
        ...

    @property
    def deadline_s(self) -> float:
        """When its answer is due; infinite where nobody said so."""
        ...

    @property
    def priority(self) -> int:
        """Its level; 1 is the highest."""
        ...


class Waiting(Protocol):
    """What waits, in the order in which it is taken."""

    @property
    def dated(self) -> int:
        """How many of them have a deadline."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...


class Timing(NamedTuple):
    """How batches are padded and how long they take, by the number of requests in them.

    Attributes:
        shapes: The shape of a batch of 0, 1, 2 ... requests, up to the largest.
        seconds: Dispatch to the original model's answer, likewise; does not fall. Zeros where
            nobody asks for time.
        handling_s: What the engine adds before an idle device can begin.
        enough: Requests beyond which a larger batch saves next to nothing.
    """

    shapes: tuple[int, ...]
    seconds: tuple[float, ...]
    handling_s: float = 0.0
    enough: int = 1

    @property
    def largest(self) -> int:
        """The most requests of a batch."""
        return len(self.shapes) - 1


def enough(seconds: Sequence[float]) -> int:
    """The fewest requests of a batch that takes nearly as little time per request as any.

    Args:
        seconds: Of a batch of 0, 1, 2 ... requests.

    >>> enough((0.010, 0.010, 0.016, 0.020, 0.020)), enough((0.010, 0.010, 0.0198))
    (4, 1)
    """
    each = [taken_s / count for count, taken_s in enumerate(seconds) if count]
    return next(n for n, share in enumerate(each, 1) if share <= NEARLY * min(each))


class Device(NamedTuple):
    """What is known of the device, and of what comes.

    Attributes:
        ends_s: When the batches that are on it will have run to their end, oldest first.
        free_s: When the last that did so was done.
        limit: Batches that may be on it at a time.
        coming_rps: How many requests came per second lately.
    """

    ends_s: tuple[float, ...] = ()
    free_s: float = -math.inf
    limit: int = 1
    coming_rps: float = 0.0

    def start_s(self, formed_s: float, handling_s: float) -> float:
        """When a batch formed then begins."""
        return max(formed_s + handling_s, self.ends_s[-1] if self.ends_s else self.free_s)


class Decision(NamedTuple):
    """What to do now.

    Attributes:
        size: How many leave the line, from its front; 0 is to wait.
        late: Positions of those among them that are rejected: their deadline passed or can no more
            be met. The others are the batch.
        shape: What the batch is padded to; 0 where all that leave are rejected.
        until_s: Decide again then, or when somebody arrives before.
    """

    size: int
    late: tuple[int, ...]
    shape: int
    until_s: float = math.inf


Form = Callable[[Waiting, float, Device, Timing], Decision]
"""``form(waiting, now_s, device, timing)``; at least one waits and a place is free."""
Admit = Callable[[Waiting, Entry, float, Device, Timing], bool]
"""``admit(waiting, entry, now_s, device, timing)``: whether a newcomer may join the line."""


class Policy(NamedTuple):
    """How batches are formed.

    Attributes:
        form: The next batch.
        admit: Who may wait; None is everybody.
        timed: Whether it goes by deadlines, the device and the profile. The line is then in the
            order of deadlines inside a level, and every request has one.
    """

    form: Form
    admit: Admit | None = None
    timed: bool = False


def batch_shape(waiting: int, batch_sizes: Sequence[int]) -> tuple[int, int]:
    """How many of ``waiting`` requests to take, and the shape to pad them to.

    Args:
        waiting: Requests that wait, at least 1.
        batch_sizes: Allowed shapes, ascending.

    Returns:
        ``(take, shape)``: as many as fit the largest shape, padded to the smallest that holds them.

    >>> batch_shape(3, (1, 2, 4, 8))
    (3, 4)
    >>> batch_shape(20, (1, 2, 4, 8))
    (8, 8)
    """
    take = min(waiting, batch_sizes[-1])
    return take, next(size for size in batch_sizes if size >= take)


def untimed(batch_sizes: Sequence[int]) -> Timing:
    """The timing of policies that do not ask for time."""
    counts = range(batch_sizes[-1] + 1)
    shapes = tuple(batch_shape(max(count, 1), batch_sizes)[1] for count in counts)
    return Timing(shapes, (0.0,) * len(shapes))


def _immediate(waiting: Waiting, now_s: float, device: Device, timing: Timing) -> Decision:
    del device
    largest = len(timing.shapes) - 1
    count = len(waiting)
    if not waiting.dated:
        size = count if count < largest else largest
        return Decision(size, (), timing.shapes[size])
    taken, late = 0, []
    for position, entry in enumerate(waiting):
        if entry.deadline_s < now_s:
            late.append(position)
            continue
        if taken == largest:
            break
        taken += 1
    return Decision(taken + len(late), tuple(late), timing.shapes[taken] if taken else 0)


immediate = Policy(_immediate)
"""As many as wait, at once."""


def timeout(timeout_s: float) -> Policy:
    """A batch leaves when it is full or its oldest request has waited for ``timeout_s``.

    Args:
        timeout_s: Longest wait for others while the device could take a batch, seconds.

    Raises:
        ConfigError: If it is not a finite time of at least 0.

    References:
        TensorFlow Serving's batching guide: ``max_batch_size`` (here the largest batch shape),
        ``batch_timeout_micros``, ``allowed_batch_sizes``, ``max_enqueued_batches`` (here the bound
        of the queue, in requests).
    """
    if not 0.0 <= timeout_s < math.inf:
        raise ConfigError(f"the batch timeout is {timeout_s * 1e3} ms, expected at least 0")

    def form(waiting: Waiting, now_s: float, device: Device, timing: Timing) -> Decision:
        decision = _immediate(waiting, now_s, device, timing)
        if decision.size - len(decision.late) == timing.largest or not decision.shape:
            return decision
        # Fewer than a full batch: all that wait were looked at.
        entries = list(waiting)
        alive = [entry.deadline_s >= now_s for entry in entries]
        until_s = min(e.arrived_s for e, is_alive in zip(entries, alive, strict=True) if is_alive)
        until_s += timeout_s
        if until_s <= now_s:
            return decision
        passed = alive.index(True)
        return Decision(passed, tuple(range(passed)), 0, until_s)

    return Policy(form)


def _within(line: Sequence[Entry], first: int, start_s: float, timing: Timing) -> Decision:
    """The largest batch from ``line[first:]`` that starts now and meets every deadline in it."""
    seconds = timing.seconds
    taken, late, due_s = 0, [], math.inf
    alone_s = start_s + seconds[1] - TOLERANCE_S
    head = line[first]
    if head.deadline_s >= alone_s:
        # Of one level the first is due first: it alone decides.
        fits = bisect_right(seconds, head.deadline_s - start_s + TOLERANCE_S) - 1
        count = min(fits, timing.largest, len(line) - first)
        if count > 0 and line[first + count - 1].priority == head.priority:
            return Decision(count, (), timing.shapes[count])
    position = first
    for position in range(first, len(line)):
        deadline_s = line[position].deadline_s
        if deadline_s < alone_s:
            late.append(position - first)
            continue
        due_s = min(due_s, deadline_s)
        if taken == timing.largest or start_s + seconds[taken + 1] - TOLERANCE_S > due_s:
            break
        taken += 1
    else:
        position = len(line)
    return Decision(position - first, tuple(late), timing.shapes[taken] if taken else 0)


def _form_within(waiting: Waiting, now_s: float, device: Device, timing: Timing) -> Decision:
    start_s = device.start_s(now_s, timing.handling_s)
    return _within(list(waiting), 0, start_s, timing)


def _admit(waiting: Waiting, entry: Entry, now_s: float, device: Device, timing: Timing) -> bool:
    """Whether the newcomer can be answered in time and costs nobody of its level or above theirs.

    By what waits, is on the device and the profile: batches are formed ahead as ``slo`` will. A
    batch that the newcomer is in has to be in time even when as many more have joined it as lately
    came in such a time, up to a batch that is large enough. Without that, an overloaded server goes
    on with batches of one: the first in line never has the time for more.
    """
    if entry.deadline_s < now_s + timing.handling_s + timing.seconds[1] - TOLERANCE_S:
        return False
    before = list(waiting)
    place = len(before)
    while place and _key(before[place - 1]) > _key(entry):
        place -= 1
    line = [*before[:place], entry, *before[place:]]
    lost: list[Entry] = []
    for first, batch, formed_s, start_s in ahead(line, now_s, device, timing):
        lost += _lost(line, first, batch, entry.priority)
        if first <= place < first + batch.size == len(line):
            many = int(device.coming_rps * (formed_s - now_s))
            if not _may_grow(line, first, batch, many, start_s, timing):
                return False
    if not lost:
        return True
    if any(one is entry for one in lost):
        return False
    # Some were lost anyway: a batch took longer than the profile says.
    batches = ahead(before, now_s, device, timing)
    return len(lost) <= sum(len(_lost(before, b[0], b[1], entry.priority)) for b in batches)


def _may_grow(
    line: Sequence[Entry], first: int, batch: Decision, many: int, start_s: float, timing: Timing
) -> bool:
    """Whether the last batch of the line is in time even if so many more join it."""
    late = {first + position for position in batch.late}
    due = [line[at].deadline_s for at in range(first, len(line)) if at not in late]
    grown = min(timing.enough, len(due) + many)
    if not due or grown <= len(due):
        return True
    return start_s + timing.seconds[grown] - TOLERANCE_S <= min(due)


def _key(entry: Entry) -> tuple[int, float]:
    return entry.priority, entry.deadline_s


def _lost(line: Sequence[Entry], first: int, batch: Decision, level: int) -> list[Entry]:
    """Who of the levels up to ``level`` is rejected when this batch is formed."""
    late = (line[first + position] for position in batch.late)
    return [entry for entry in late if entry.priority <= level]


def ahead(
    line: Sequence[Entry], now_s: float, device: Device, timing: Timing
) -> Iterator[tuple[int, Decision, float, float]]:
    """The batches that ``slo`` will form, were nobody to come any more.

    Args:
        line: What waits, in order.
        now_s: Seconds.
        device: What is on it.
        timing: By the profile.

    Yields:
        Position of the first in line of each, the decision, when it is formed, when it begins.
    """
    ends = list(device.ends_s[-device.limit :])
    end_s = ends[-1] if ends else device.free_s
    first = 0
    while first < len(line):
        formed_s = now_s if len(ends) < device.limit else max(now_s, ends[0])
        start_s = max(formed_s + timing.handling_s, end_s)
        batch = _within(line, first, start_s, timing)
        yield first, batch, formed_s, start_s
        first += batch.size
        taken = batch.size - len(batch.late)
        if taken:
            end_s = start_s + timing.seconds[taken]
            ends = [*ends, end_s][-device.limit :]


slo = Policy(_form_within, _admit, timed=True)
"""The largest batch that meets every deadline in it; what cannot be met is rejected."""
