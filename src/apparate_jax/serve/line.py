"""The line of requests that wait: by priority level, inside it by arrival or by deadline.

Shared by the engine's queue and replay. Not synchronised: the engine's queue is.
"""

import math
from bisect import insort
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar

from apparate_jax.serve.policies import Entry

E = TypeVar("E", bound=Entry)


class Line(Generic[E]):
    """What waits, in the order in which it is taken.

    Attributes:
        count: How many wait.
        dated: How many of them have a deadline.
    """

    __slots__ = ("_by_deadline", "_levels", "_soonest_s", "count", "dated")

    def __init__(self, levels: int = 1, *, by_deadline: bool = False) -> None:
        """Make an empty line.

        Args:
            levels: Of priority; level 1 goes first.
            by_deadline: Inside a level the earliest deadline goes first, else the first that came.
        """
        self._levels: list[deque[E]] = [deque() for _ in range(levels)]
        self._by_deadline = by_deadline
        self.count = 0
        self.dated = 0
        self._soonest_s = math.inf  # no deadline is earlier; perhaps it has left

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[E]:
        return chain.from_iterable(self._levels)

    def add(self, entry: E) -> None:
        """Let somebody join."""
        if entry.deadline_s != math.inf:
            self.dated += 1
            self._soonest_s = min(self._soonest_s, entry.deadline_s)
        if self._by_deadline:
            insort(self._levels[entry.priority - 1], entry, key=_deadline)
        else:
            self._levels[entry.priority - 1].append(entry)
        self.count += 1

    def pop(self, count: int) -> list[E]:
        """Take so many from the front; no more than there are."""
        out: list[E] = []
        for level in self._levels:
            while level and len(out) < count:
                out.append(level.popleft())
        self.count -= len(out)
        if self.dated:
            self.dated -= sum(entry.deadline_s < math.inf for entry in out)
        return out

    def pop_passed(self, now_s: float) -> list[E]:
        """Take those whose deadline passed, wherever they stand."""
        if self._soonest_s >= now_s:
            return []
        entries = list(self)
        self.pop(len(entries))
        self._soonest_s = math.inf
        passed = []
        for entry in entries:
            if entry.deadline_s < now_s:
                passed.append(entry)
            else:
                self.add(entry)
        return passed


def _deadline(entry: Entry) -> float:
    return entry.deadline_s
