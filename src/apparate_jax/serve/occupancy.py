"""The batches on the device: when the profile says that each will have run to its end.

Batches run one after another. What a batch takes is predicted; when one ended is seen, and the
next began then. Not synchronised by itself where only one thread asks; the lock is for the engine's
two.
"""

import math
import threading
from collections import deque

from apparate_jax.serve.policies import Device


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

    def end(self, now_s: float) -> None:
        """The oldest batch ran to its end."""
        with self._lock:
            self._running.popleft()
            self._free_s = now_s

    def at(self, now_s: float) -> Device:
        """What the device looks like now; a batch that should have ended will do so at once."""
        with self._lock:
            running = tuple(self._running)
            end_s = free_s = self._free_s
        ends = []
        for earliest_s, seconds in running:
            end_s = max(now_s, max(earliest_s, end_s) + seconds)
            ends.append(end_s)
        return Device(tuple(ends), free_s, self._limit)
