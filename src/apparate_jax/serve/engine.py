"""The engine: batches in, answers out as their ramps complete, every input run to its end.

Two threads. The **dispatcher** forms a batch of fixed shape, hands it over and queues its programs
on the device, up to the held ramp's at once (JAX dispatch is asynchronous). The **releaser** waits
for each packed answer in turn; whoever's error is below the ramp's threshold gets its answer there
and then. Behind the held ramp the rest is queued at once if anybody waits for it, else deferred
(:mod:`apparate_jax.serve.deferral`); at the end every input has the original model's answer too,
and the observer the batch's record. At most ``max_in_flight`` batches with unanswered requests are
on the device: two keep it busy. A **shadow batch** also runs the other heads at its end.

With an empty plan this is the vanilla server. Sharp edges: futures resolve on the releaser's
thread, so callbacks must be short; inputs are not copied: do not change them before the answer.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import jax
from numpy.typing import NDArray

from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import LoadPolicy, always
from apparate_jax.core import Answer, ExitPlan, Model, Site
from apparate_jax.errors import ApparateError, EngineClosedError, RequestError
from apparate_jax.serve.batching import Request, RequestQueue
from apparate_jax.serve.choice import Chooser
from apparate_jax.serve.deferral import Deferral, queue_ramps, queue_rest, run_piece
from apparate_jax.serve.engine_config import BatchingConfig, EngineConfig
from apparate_jax.serve.in_flight import InFlight, padded, told
from apparate_jax.serve.inputs import Inputs
from apparate_jax.serve.policies import Device, Timing
from apparate_jax.serve.programs import Programs
from apparate_jax.serve.release import Observer, Release
from apparate_jax.serve.timing import forecast_of

__all__ = ["BatchingConfig", "Engine", "EngineConfig", "Observer"]

logger = logging.getLogger(__name__)


class Engine:
    """Serves one model. Use as a context manager, or call :meth:`start` and :meth:`close`."""

    def __init__(
        self,
        programs: Programs,
        config: EngineConfig | None = None,
        *,
        plan: ExitPlan | None = None,
        load_policy: LoadPolicy = always,
        latency: LatencyModel | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an engine over warmed programs.

        Args:
            programs: Compiled programs; warm the plan's routes before :meth:`start`.
            config: Limits, and how batches are formed.
            plan: Active ramps and thresholds; the empty plan is the original model.
            load_policy: Which of the plan's ramps a batch runs, by the load that it sees.
            latency: From the measured profile, for batching that goes by time.
            observer: Called on the releaser's thread with each completed batch's record.
            clock: Monotonic seconds.

        Raises:
            ConfigError: The model's inputs are not described, or batching needs a profile.
        """
        self._programs = programs
        self._config = config or EngineConfig()
        self._plan = plan or ExitPlan()
        largest, depths = programs.batch_sizes[-1], [site.depth for site in programs.sites]
        self._chooser = Chooser(self._config, load_policy, largest, depths, latency)
        self._clock = clock
        self._inputs = Inputs(self.model)
        self._release = Release(self.sites, programs.ramps, lambda: self._plan, observer, clock)
        self._forecast = forecast_of(self._config, programs.batch_sizes, latency)
        self._queue = self._make_queue()
        self._slots = threading.Semaphore(self._config.max_in_flight)
        self._deferral = Deferral(self._config.deferrals)
        self._in_flight: queue.SimpleQueue[InFlight | None] = queue.SimpleQueue()
        self._open = 0
        self._idle = threading.Condition()
        self._due_after_s = self._config.batching.due_after_s
        self._default_level = self._config.batching.default_priority
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def _make_queue(self) -> RequestQueue:
        batching = self._config.batching
        return RequestQueue(
            self._config.queue_size,
            self._look,
            batching.make(),
            levels=batching.priority_levels,
            clock=self._clock,
            came=self._forecast.came,
            on_drop=self._leave,
        )

    def _look(self, now_s: float) -> tuple[Device, Timing]:
        return self._forecast.look(now_s, self._plan.sites)

    @property
    def model(self) -> Model:
        """The model that is served."""
        return self._programs.model

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites of the model."""
        return self._programs.sites

    @property
    def num_classes(self) -> int:
        """Width of the scores."""
        return self._programs.num_classes

    @property
    def plan(self) -> ExitPlan:
        """The plan in force."""
        return self._plan

    @property
    def waiting(self) -> int:
        """Requests that wait for a batch."""
        return len(self._queue)

    @property
    def ready(self) -> bool:
        """Whether requests are taken and answered."""
        return (
            bool(self._threads)
            and self._failure is None
            and all(t.is_alive() for t in self._threads)
        )

    def set_plan(self, plan: ExitPlan) -> None:
        """Use other thresholds or another set of ramps, from the next release or batch on.

        Batches that are on the device keep their ramps; thresholds of the same set apply to them
        at once. Another set runs on atomic stages until its merged ones are compiled in the
        background, which rests while a whole further batch waits.
        """
        changed = plan.sites != self._plan.sites
        for batch in self._programs.batch_sizes if changed else ():
            self._programs.route(plan.sites, batch)  # raises where it cannot run
        self._plan = plan
        if changed:
            self._programs.prepare(plan.sites, self._is_behind)

    def _is_behind(self) -> bool:
        """Whether a whole further batch waits, which would wait longer yet."""
        return self.waiting >= self._programs.batch_sizes[-1]

    def start(self) -> "Engine":
        """Start the dispatcher and the releaser."""
        for name, loop in (("dispatch", self._dispatch_loop), ("release", self._release_loop)):
            thread = threading.Thread(
                target=self._guarded, args=(loop,), name=f"apparate-{name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return self

    def __enter__(self) -> "Engine":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        exact: bool = False,
        final: "Future[Answer] | None" = None,
        arrived_s: float | None = None,
        priority: int | None = None,
        deadline_s: float | None = None,
        trace: object | None = None,
    ) -> "Future[Answer]":
        """Submit one example.

        Args:
            inputs: Array per input name, of the model's shape **without** the batch axis.
            exact: Never exit early.
            final: Resolved with the original model's own answer as well, early answer or not;
                cancelled with the request, and it gets its errors.
            arrived_s: When it was meant to arrive (engine's clock); now unless given.
            priority: Its level, 1 is the highest; None or 0 is the configured default.
            deadline_s: When its answer is due (engine's clock); never unless given or configured.
                Once it passed, a request that still waits is dropped.
            trace: Span of the request; the batch's record has it.

        Returns:
            A future of the answer. It may raise :class:`NumericsError` (the original's logits were
            not finite), :class:`DeadlinePassedError`, :class:`DeadlineUnreachableError` or
            :class:`EngineClosedError`.

        Raises:
            RequestError: Missing or unknown inputs, another shape or dtype, no such level.
            QueueFullError: Too many requests wait.
            DeadlineUnreachableError: With ``slo``: it can not be met, by what waits already.
            EngineClosedError: The engine was closed or failed.
        """
        if self._failure is not None:
            raise EngineClosedError(f"the engine stopped: {self._failure!r}") from self._failure
        arrived_s = self._clock() if arrived_s is None else arrived_s
        level = self._level(priority) if priority else self._default_level
        due_s = arrived_s + self._due_after_s if deadline_s is None else deadline_s
        values = self._inputs.ordered(inputs)
        request = Request(values, arrived_s, exact, due_s, level, final, trace)
        with self._idle:
            self._open += 1
        try:
            self._queue.put(request)
        except ApparateError:
            self._leave(1)
            raise
        return request.future

    def _level(self, priority: int) -> int:
        levels = self._config.batching.priority_levels
        if not 1 <= priority <= levels:
            raise RequestError(f"priority is {priority}, expected 1 to {levels}")
        return priority

    def wait_idle(self, timeout_s: float = 60.0) -> bool:
        """Wait until every accepted request has run to its end, not only been answered."""
        with self._idle:
            return self._idle.wait_for(lambda: self._open == 0, timeout_s)

    def _leave(self, count: int) -> None:
        with self._idle:
            self._open -= count
            if self._open == 0:
                self._idle.notify_all()

    def close(self, *, drain: bool = True, timeout_s: float = 60.0) -> None:
        """Stop. With ``drain`` what was accepted is answered first, else it gets an error."""
        self._queue.close()
        if not drain or not self._threads:
            self._refuse_waiting()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        waiting = self._queue.drain()
        self._fail(waiting, EngineClosedError("the engine was closed before this was answered"))
        self._leave(len(waiting))

    def _guarded(self, loop: Callable[[], None]) -> None:
        """Run a thread's loop; if it dies, everybody who waits hears of it."""
        try:
            loop()
        except BaseException as error:
            logger.exception("the engine stopped")
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._queue.close()
        self._refuse_waiting()

    def _give_up(self, batch: InFlight, error: BaseException) -> None:
        self._fail(batch.requests, error)
        self._release.tell_lost(batch)
        self._ended(batch)

    def _ended(self, batch: InFlight) -> None:
        self._forecast.end(self._clock())
        self._deferral.end(batch)
        self._leave(len(batch.requests))
        if not batch.deferred:
            self._slots.release()
        if self._deferral.has_time():
            self._queue.wake()

    def _dispatch_loop(self) -> None:
        try:
            while self._slots.acquire():
                taken = self._queue.take(self._deferral.has_time)
                if taken is None:
                    return
                if taken[0]:
                    self._hand_over(*taken)
                else:
                    self._slots.release()
                    self._use_time()
        finally:
            for batch in self._deferral.drain():
                self._finish(batch)
            self._in_flight.put(None)  # however this ended: no batch follows

    def _use_time(self) -> None:
        """Run a piece of the oldest deferred batch, for nobody waits."""
        batch = self._deferral.oldest()
        if run_piece(batch, self._programs, self._clock):
            self._deferral.take(batch)
            self._in_flight.put(batch)

    def _finish(self, batch: InFlight) -> None:
        """Queue all that is left of a deferred batch."""
        batch.deferred_s += self._clock() - batch.rests_s
        queue_rest(batch)
        self._in_flight.put(batch)

    def _hand_over(self, requests: list[Request], shape: int) -> None:
        try:
            batch = self._make_batch(requests, shape)
        except BaseException as error:
            logger.exception("no batch could be made of %d requests", len(requests))
            self._fail(requests, error)
            self._leave(len(requests))
            self._slots.release()
            if not isinstance(error, Exception):
                raise
            return
        try:
            self._dispatch(batch)
        except BaseException as error:
            batch.answers.put(told(error))
            if batch.course is None:  # the releaser does not know of it yet
                self._in_flight.put(batch)
            if not isinstance(error, Exception):
                raise

    def _make_batch(self, requests: list[Request], shape: int) -> InFlight:
        plan, now_s = self._plan, self._clock()
        exact = any(request.exact for request in requests)
        taken, waiting = len(requests), self.waiting
        sites, shadow, hold = self._chooser.next(plan, taken, waiting, now_s, exact=exact)
        self._forecast.begin(now_s, taken, plan.sites, sites, shadow=shadow)
        return InFlight(requests, sites, shape, now_s, shadow=shadow, hold=hold)

    def _dispatch(self, batch: InFlight) -> None:
        programs = self._programs
        find = programs.shadow_route if batch.shadow else programs.route
        route = find(batch.sites, batch.shape)
        columns = zip(*(request.inputs for request in batch.requests), strict=True)
        inputs = jax.device_put(
            [padded(column, batch.shape) for column in columns], programs.device
        )
        for deferred in self._deferral.begin(batch, self._release.room()):
            self._finish(deferred)
        batch.course = route.start(programs.ramp_params, inputs)
        self._in_flight.put(batch)
        (queue_ramps if batch.hold else queue_rest)(batch)

    def _release_loop(self) -> None:
        try:
            while (batch := self._in_flight.get()) is not None:
                self._release_one(batch)
        except BaseException as error:
            self._stop(error)
            # The dispatcher may be about to hand one more over.
            while (batch := self._in_flight.get()) is not None:
                self._give_up(batch, error)
            raise

    def _release_one(self, batch: InFlight) -> None:
        try:
            if batch.hold and not batch.deferred:
                self._release.ramps(batch, batch.hold)
                if not self._goes_on(batch):
                    return
            self._release.ramps(batch)
            self._release.final(batch)
        except BaseException as error:
            logger.exception("a batch of %d requests failed", len(batch.requests))
            self._give_up(batch, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._chooser.saw(batch.sites, batch.exits)
            self._ended(batch)

    def _goes_on(self, batch: InFlight) -> bool:
        """Whether anybody waits for the rest of a held batch: it is queued then, else deferred."""
        if not batch.released.all():
            queue_rest(batch)
            self._deferral.go_on()
            return True
        batch.rests_s = self._clock()
        self._deferral.defer(batch)
        self._slots.release()
        self._queue.wake()
        return False

    def _fail(self, requests: list[Request], error: BaseException) -> None:
        for request in requests:
            request.fail(told(error))
