"""Requests that wait, and how many of them make the next batch.

The queue is bounded; a full one refuses at once rather than let latency grow without limit. How a
batch is formed is a pure function of what waits, shared with the simulator.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from apparate_jax.core import Answer
from apparate_jax.errors import EngineClosedError, QueueFullError


@dataclass(slots=True, eq=False)
class Request:
    """One input on its way to an answer.

    Attributes:
        inputs: One array per model input, without the batch axis.
        arrived_s: When it was submitted (or meant to be), seconds of the engine's clock.
        exact: Never exit: wait for the original model's own answer.
        future: Resolved exactly once, with an answer or an error.
        final: Resolved with the original model's own answer too, for whoever wants both.
    """

    inputs: tuple[NDArray[Any], ...]
    arrived_s: float
    exact: bool = False
    future: "Future[Answer]" = field(default_factory=Future)
    final: "Future[Answer] | None" = None

    def begin(self) -> bool:
        """Nobody can withdraw it from here on; False if somebody had."""
        begun = self.future.set_running_or_notify_cancel()
        if self.final is not None and not (begun and self.final.set_running_or_notify_cancel()):
            self.final.cancel()
            self.final = None
        return begun

    def fail(self, error: BaseException) -> None:
        """Give the error to everybody who still waits."""
        for future in (self.future, self.final):
            if future is not None and not future.done():
                future.set_exception(error)


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


class RequestQueue:
    """Bounded first-in first-out queue between submitters and the dispatcher."""

    def __init__(self, limit: int, on_drop: Callable[[int], None] = lambda _: None) -> None:
        """Make an empty queue.

        Args:
            limit: Requests that may wait.
            on_drop: Called with the number of cancelled requests that were dropped.
        """
        self._on_drop = on_drop
        self._waiting: deque[Request] = deque()
        self._limit = limit
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: Request) -> None:
        """Add a request.

        Raises:
            QueueFullError: If ``limit`` requests wait already.
            EngineClosedError: If the queue was closed.
        """
        with self._changed:
            if self._closed:
                raise EngineClosedError("the engine is closed: it takes no more requests")
            if len(self._waiting) >= self._limit:
                raise QueueFullError(
                    f"{self._limit} requests wait already: try again later, or raise the queue size"
                )
            self._waiting.append(request)
            self._changed.notify()

    def take(self, batch_sizes: Sequence[int]) -> tuple[list[Request], int] | None:
        """Wait for requests; None once the queue is closed and empty.

        Requests whose future was cancelled are dropped.

        Returns:
            The next batch's requests and the shape to pad them to.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return None
                count, _ = batch_shape(len(self._waiting), batch_sizes)
                taken = [self._waiting.popleft() for _ in range(count)]
            alive = [request for request in taken if request.begin()]
            if len(alive) < count:
                self._on_drop(count - len(alive))
            if alive:
                return alive, batch_shape(len(alive), batch_sizes)[1]

    def close(self) -> None:
        """Refuse further requests; what waits is still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> list[Request]:
        """Remove and return everything that waits."""
        with self._changed:
            taken = list(self._waiting)
            self._waiting.clear()
            return taken
