"""Requests that wait for a batch, and the queue between those who submit and the dispatcher.

The queue is bounded; a full one refuses at once rather than let latency grow without limit. Who
leaves it when is decided by a policy (:mod:`apparate_jax.serve.policies`), a pure function that
replay drives too.
"""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from apparate_jax.core import Answer
from apparate_jax.errors import (
    DeadlinePassedError,
    DeadlineUnreachableError,
    EngineClosedError,
    QueueFullError,
)
from apparate_jax.serve.line import Line
from apparate_jax.serve.policies import (
    Admit,
    Decision,
    Device,
    Policy,
    Timing,
    batch_shape,
    immediate,
)

__all__ = ["Request", "RequestQueue", "Taken", "batch_shape"]

NOBODY = Decision(0, (), 0)
"""Of an empty queue: until somebody comes."""
Look = Callable[[float], tuple[Device, Timing]]
"""``look(now_s)``: the device, and how long batches take."""
Taken = tuple[list["Request"], int]
"""A batch: its requests, and the shape to pad them to."""


@dataclass(slots=True, eq=False)
class Request:
    """One input on its way to an answer.

    Attributes:
        inputs: One array per model input, without the batch axis.
        arrived_s: When it was submitted (or meant to be), seconds of the engine's clock.
        exact: Never exit: wait for the original model's own answer.
        deadline_s: When its answer is due; infinite where nobody said so.
        priority: Its level; 1 goes first.
        final: Resolved with the original model's own answer too, for whoever wants both.
        trace: Span that what happens to it belongs to.
        future: Resolved exactly once, with an answer or an error.
    """

    inputs: tuple[NDArray[Any], ...]
    arrived_s: float
    exact: bool = False
    deadline_s: float = math.inf
    priority: int = 1
    final: "Future[Answer] | None" = None
    trace: object | None = None
    future: "Future[Answer]" = field(default_factory=Future)

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


class RequestQueue:
    """Bounded queue between submitters and the dispatcher."""

    def __init__(
        self,
        limit: int,
        look: Look,
        policy: Policy = immediate,
        *,
        levels: int = 1,
        clock: Callable[[], float] = time.monotonic,
        came: Callable[[float], None] = lambda _: None,
        on_drop: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Make an empty queue.

        Args:
            limit: Requests that may wait.
            look: What the policy is told of time.
            policy: Who leaves when.
            levels: Of priority.
            clock: Monotonic seconds.
            came: Called with the time at which a request asks to be admitted.
            on_drop: Called with the number of requests that were cancelled or rejected.
        """
        self._look = look
        self._policy = policy
        self._admit = policy.admit
        self._clock = clock
        self._came = came
        self._on_drop = on_drop
        self._line: Line[Request] = Line(levels, by_deadline=policy.timed)
        self._limit = limit
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._line)

    def put(self, request: Request) -> None:
        """Add a request.

        Raises:
            QueueFullError: If ``limit`` requests wait already.
            DeadlineUnreachableError: If the policy knows already that it would be late.
            EngineClosedError: If the queue was closed.
        """
        with self._changed:
            if self._closed:
                raise EngineClosedError("the engine is closed: it takes no more requests")
            if self._line.count < self._limit:
                if self._admit is not None:
                    self._check(request, self._admit)
                self._line.add(request)
                self._changed.notify()
                return
        # Those whose deadline passed are to keep nobody out.
        if not self._shed():
            raise QueueFullError(
                f"{self._limit} requests wait already: try again later, or raise the queue size"
            )
        self.put(request)

    def _check(self, request: Request, admit: Admit) -> None:
        now_s = self._clock()
        self._came(now_s)
        device, timing = self._look(now_s)
        if not admit(self._line, request, now_s, device, timing):
            raise _unreachable(request, now_s, len(self._line), len(device.ends_s))

    def take(self, has_time: Callable[[], bool] = lambda: False) -> Taken | None:
        """Wait for the next batch; None once the queue is closed and empty.

        Requests whose future was cancelled are dropped.

        Args:
            has_time: Whether there is something else to do while no batch leaves: then an empty
                one is given back. Asked again after :meth:`wake`.
        """
        while True:
            with self._changed:
                if not len(self._line) and self._closed:
                    return None
                now_s = self._clock()
                decision = self._form(now_s) if len(self._line) else NOBODY
                if not decision.size:
                    if has_time():
                        return [], 0
                    left_s = decision.until_s - now_s
                    self._changed.wait(left_s if left_s < math.inf else None)
                    continue
                leaving = self._line.pop(decision.size)
            taken = self._begin(leaving, decision, now_s)
            if taken is not None:
                return taken

    def wake(self) -> None:
        """Let :meth:`take` look again whether there is something else to do."""
        with self._changed:
            self._changed.notify_all()

    def poll(self, now_s: float) -> Taken | float:
        """The batch that leaves now, or until when none does (infinite: until somebody comes).

        This is :meth:`take` for those who bring a clock of their own.
        """
        while len(self._line):
            decision = self._form(now_s)
            if not decision.size:
                return decision.until_s
            taken = self._begin(self._line.pop(decision.size), decision, now_s)
            if taken is not None:
                return taken
        return math.inf

    def _form(self, now_s: float) -> Decision:
        device, timing = self._look(now_s)
        decision = self._policy.form(self._line, now_s, device, timing)
        if not decision.size and self._closed:  # nobody comes any more to be waited for
            return immediate.form(self._line, now_s, device, timing)
        return decision

    def _begin(self, leaving: list[Request], decision: Decision, now_s: float) -> Taken | None:
        if decision.late:
            late = frozenset(decision.late)
            _reject([leaving[position] for position in decision.late], now_s, len(self._line))
            leaving = [request for i, request in enumerate(leaving) if i not in late]
        alive = [request for request in leaving if request.begin()]
        if len(alive) < decision.size:
            self._on_drop(decision.size - len(alive))
        return (alive, self._look(now_s)[1].shapes[len(alive)]) if alive else None

    def _shed(self) -> bool:
        """Drop those whose deadline passed; whether there were any."""
        with self._changed:
            now_s = self._clock()
            passed = self._line.pop_passed(now_s)
        _reject(passed, now_s, 0)
        if passed:
            self._on_drop(len(passed))
        return bool(passed)

    def close(self) -> None:
        """Refuse further requests; what waits is still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> list[Request]:
        """Remove and return everything that waits."""
        with self._changed:
            return self._line.pop(len(self._line))


def _reject(requests: list[Request], now_s: float, waiting: int) -> None:
    """Tell them that their deadline passed, or can no more be met."""
    for request in requests:
        if not request.begin():
            continue
        if request.deadline_s < now_s:
            late_ms = (now_s - request.deadline_s) * 1e3
            request.fail(
                DeadlinePassedError(
                    f"its deadline passed {late_ms:.1f} ms ago, after "
                    f"{(now_s - request.arrived_s) * 1e3:.1f} ms of waiting: send fewer requests, "
                    "or give it a longer timeout"
                )
            )
        else:
            request.fail(_unreachable(request, now_s, waiting, 0))


def _unreachable(
    request: Request, now_s: float, waiting: int, running: int
) -> DeadlineUnreachableError:
    left_ms = (request.deadline_s - now_s) * 1e3
    return DeadlineUnreachableError(
        f"an answer within {left_ms:.1f} ms can not be had by the measured profile, with {waiting} "
        f"requests waiting and {running} batches on the device: try again later, or give it a "
        "longer timeout"
    )
