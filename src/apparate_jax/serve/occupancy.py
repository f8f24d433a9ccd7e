"""The batches on the device: when the profile says that each will have run to its end.

Batches run one after another. What a batch takes is predicted; when one ended is seen, and the
next began then: so it is also seen how much longer than predicted they take. Not synchronised by
itself where only one thread asks; the lock is for the engine's two.
"""

import math
import threading
from collections import deque

from apparate_jax.serve.policies import Device

ENOUGH = 8
"""Batches that say how much slower than its profile a device is."""
SLOW = 0.9
"""Quantile of them that is reckoned with."""
EXACT = 1e-6
"""Of a step; no batch is slower by what a sum of times is rounded by."""
STEPS = 20
"""Steps of a pace between one and two: few of them, so that what rests on it is made seldom."""


class Occupancy:
    """What is on the device. Batches end in the order in which they were begun."""

    def __init__(self, limit: int) -> None:
        """Make an idle device.

        Args:
            limit: Batches that may be on it at a time.
        """
        self._limit = limit
        self._free_s = -math.inf
        self._running: deque[tuple[float, float]] = deque()  # earliest start, duration
        self._lock = threading.Lock()

    def begin(self, earliest_s: float, seconds: float) -> None:
        """A batch was handed over.

        Args:
            earliest_s: It begins then, or when those before it are done.
            seconds: What it will take.
        """
        with self._lock:
            self._running.append((earliest_s, seconds))

    def end(self, now_s: float) -> float | None:
        """The oldest batch ran to its end.

        Returns:
            How many times as long as predicted it took; None if it did not follow another at once,
            for then a rested device had it, or nobody can say when it began.
        """
        with self._lock:
            earliest_s, seconds = self._running.popleft()
            began_s, self._free_s = self._free_s, now_s
        followed = earliest_s <= began_s and seconds > 0.0
        return (now_s - began_s) / seconds if followed else None

    def at(self, now_s: float, pace: float = 1.0) -> Device:
        """What the device looks like now; a batch that should have ended will do so at once.

        Args:
            now_s: Seconds.
            pace: How many times as long as predicted batches take.
        """
        with self._lock:
            running = tuple(self._running)
            end_s = free_s = self._free_s
        ends = []
        for earliest_s, seconds in running:
            end_s = max(now_s, max(earliest_s, end_s) + pace * seconds)
            ends.append(end_s)
        return Device(tuple(ends), free_s, self._limit)


class Pace:
    """How many times as long as predicted batches lately took; never less than 1.

    Neighbours on the machine, and the work of refusing requests, slow a device down in a way that
    no profile knows. Forgotten with time, so that whoever is refused because of it is let in again.
    """

    def __init__(self, memory_s: float) -> None:
        """Make the pace of a device that is as its profile says.

        Args:
            memory_s: How long a batch is remembered.
        """
        self._memory_s = memory_s
        self._seen: deque[tuple[float, float]] = deque()  # when, how many times as long
        self._now = 1.0, -math.inf  # the pace, and when it was last seen

    def add(self, now_s: float, ratio: float) -> None:
        """A batch took so many times as long as predicted. From one thread at a time."""
        self._seen.append((now_s, ratio))
        while self._seen[0][0] < now_s - self._memory_s:
            self._seen.popleft()
        if len(self._seen) < ENOUGH:
            return
        ratios = sorted(ratio for _, ratio in self._seen)
        slow = ratios[math.ceil(SLOW * len(ratios)) - 1]
        self._now = max(1.0, math.ceil(slow * STEPS - EXACT) / STEPS), now_s

    def at(self, now_s: float) -> float:
        """The pace now."""
        pace, seen_s = self._now
        return pace if now_s - seen_s <= self._memory_s else 1.0
