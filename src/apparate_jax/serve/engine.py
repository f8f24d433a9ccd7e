"""The engine: batches in, answers out as their ramps complete, every input run to its end.

Two threads. The **dispatcher** forms a batch of fixed shape, hands it over and queues all of its
programs on the device at once (JAX dispatch is asynchronous). The **releaser** waits for each
packed answer in turn; whoever's error is below the ramp's threshold gets its answer there and then,
the rest goes on; at the end every input has the original model's answer too, and the batch's record
goes to the observer. At most ``max_in_flight`` batches are on the device: two keep it busy. A
**shadow batch** also runs the heads of the inactive ramps, on values that it computed anyway, once
its own answers have left.

With an empty plan this is the vanilla server: the same engine with one stage.

Sharp edges: futures resolve on the releaser's thread, so callbacks must be short. Inputs are not
copied on submission; do not change them before the answer is there.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.control.load import Load, LoadPolicy, always, next_fill, shadow_due
from apparate_jax.core import FINAL, Answer, BatchRecord, ExitPlan, Model, Site
from apparate_jax.errors import ApparateError, ConfigError, EngineClosedError, RequestError
from apparate_jax.serve.batching import Request, RequestQueue
from apparate_jax.serve.in_flight import (
    InFlight,
    confirm,
    make_answer,
    make_record,
    next_answer,
    not_finite,
    padded,
    shadow_answers,
)
from apparate_jax.serve.programs import Programs

logger = logging.getLogger(__name__)

Observer = Callable[[BatchRecord], None]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of the engine.

    Attributes:
        max_in_flight: Batches on the device at a time; 2 keeps it busy.
        queue_size: Requests that may wait before further ones are refused.
    """

    max_in_flight: int = 2
    queue_size: int = 1024

    def __post_init__(self) -> None:
        if self.max_in_flight < 1 or self.queue_size < 1:
            raise ConfigError(
                f"max_in_flight is {self.max_in_flight} and queue_size {self.queue_size}, "
                "expected at least 1 each"
            )


class Engine:
    """Serves one model. Use as a context manager, or call :meth:`start` and :meth:`close`."""

    def __init__(
        self,
        programs: Programs,
        config: EngineConfig | None = None,
        *,
        plan: ExitPlan | None = None,
        load_policy: LoadPolicy = always,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an engine over warmed programs.

        Args:
            programs: Compiled programs; warm the plan's routes before :meth:`start`.
            config: Limits.
            plan: Active ramps and thresholds; the empty plan is the original model.
            load_policy: Which of the plan's ramps a batch runs, by the load that it sees.
            observer: Called on the releaser's thread with each completed batch's record.
            clock: Monotonic seconds.
        """
        self._programs = programs
        self._config = config or EngineConfig()
        self._plan = plan or ExitPlan()
        self._load_policy = load_policy
        self._observer = observer
        self._clock = clock
        self._queue = RequestQueue(self._config.queue_size, self._leave)
        self._slots = threading.Semaphore(self._config.max_in_flight)
        self._in_flight: queue.SimpleQueue[InFlight | None] = queue.SimpleQueue()
        self._exits = 0  # early answers since the start
        self._since_shadow = 0  # batches
        self._fill = 0.0  # of the last batches
        self._open = 0
        self._idle = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None
        names = [spec.name for spec in self.model.inputs]
        self._specs = tuple(
            (spec.name, spec.shape, np.dtype(jax.numpy.dtype(spec.dtype)))
            for spec in self.model.inputs
        )
        if not names:
            raise ConfigError(
                f"the inputs of {self.model.name!r} are not described: give inputs= where the "
                "model is made"
            )

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
        background.
        """
        changed = plan.sites != self._plan.sites
        for batch in self._programs.batch_sizes if changed else ():
            self._programs.route(plan.sites, batch)  # raises where it cannot run
        self._plan = plan
        if changed:
            self._programs.prepare(plan.sites).add_done_callback(_log_failure)

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
    ) -> "Future[Answer]":
        """Submit one example.

        Args:
            inputs: Array per input name, of the model's shape **without** the batch axis.
            exact: Never exit early.
            final: Resolved with the original model's own answer as well, early answer or not;
                cancelled with the request, and it gets its errors.
            arrived_s: When it was meant to arrive (engine's clock); now unless given.

        Returns:
            A future of the answer. It may raise :class:`NumericsError` (the original's logits were
            not finite) or :class:`EngineClosedError`.

        Raises:
            RequestError: Missing or unknown inputs, another shape or dtype.
            QueueFullError: Too many requests wait.
            EngineClosedError: The engine was closed or failed.
        """
        if self._failure is not None:
            raise EngineClosedError(f"the engine stopped: {self._failure!r}") from self._failure
        arrived_s = self._clock() if arrived_s is None else arrived_s
        request = Request(self._checked_inputs(inputs), arrived_s, exact, final=final)
        with self._idle:
            self._open += 1
        try:
            self._queue.put(request)
        except ApparateError:
            self._leave(1)
            raise
        return request.future

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

    def _checked_inputs(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        if len(inputs) != len(self._specs):
            expected = [name for name, _, _ in self._specs]
            raise RequestError(f"inputs are {sorted(inputs)}, expected {expected}")
        arrays = []
        for name, shape, dtype in self._specs:
            array = inputs.get(name)
            if array is None:
                raise RequestError(f"input {name!r} is missing, got {sorted(inputs)}")
            if array.shape != shape or array.dtype != dtype:
                raise RequestError(
                    f"input {name!r} is {array.dtype}{list(array.shape)}, "
                    f"expected {dtype}{list(shape)}"
                )
            arrays.append(array)
        return tuple(arrays)

    def _guarded(self, loop: Callable[[], None]) -> None:
        """Run a thread's loop; if it dies, everybody who waits hears of it."""
        try:
            loop()
        except BaseException as error:
            logger.exception("the engine stopped")
            self._failure = error
            self._queue.close()
            self._refuse_waiting()
            while not self._in_flight.empty():
                batch = self._in_flight.get()
                if batch is not None:
                    self._give_up(batch, error)

    def _give_up(self, batch: InFlight, error: BaseException) -> None:
        self._fail(batch.requests, error)
        self._leave(len(batch.requests))
        self._slots.release()

    def _dispatch_loop(self) -> None:
        sizes = self._programs.batch_sizes
        while self._slots.acquire():
            taken = self._queue.take(sizes)
            if taken is None:
                self._in_flight.put(None)
                return
            requests, shape = taken
            plan, waiting = self._plan, self.waiting
            self._fill = next_fill(self._fill, len(requests), sizes[-1])
            load = Load(len(requests), waiting, sizes[-1], self._fill)
            sites = self._load_policy(plan, load)
            self._since_shadow += 1
            shadow = shadow_due(self._since_shadow, plan.shadow_every, waiting, sizes[-1])
            if shadow:
                self._since_shadow = 0
            batch = InFlight(requests, sites, shape, self._clock(), shadow=shadow)
            self._in_flight.put(batch)
            try:
                self._dispatch(batch)
            except Exception as error:
                batch.answers.put(error)

    def _dispatch(self, batch: InFlight) -> None:
        programs = self._programs
        route = (programs.shadow_route if batch.shadow else programs.route)(
            batch.sites, batch.shape
        )
        columns = zip(*(request.inputs for request in batch.requests), strict=True)
        inputs = jax.device_put([padded(column, batch.shape) for column in columns])
        for answer in route.dispatch(programs.ramp_params, inputs):
            batch.answers.put(answer)

    def _release_loop(self) -> None:
        while (batch := self._in_flight.get()) is not None:
            try:
                self._release(batch)
            except Exception as error:
                logger.exception("a batch of %d requests failed", len(batch.requests))
                self._give_up(batch, error)
                self._tell_lost(batch)
            except BaseException as error:
                self._give_up(batch, error)
                raise
            else:
                self._leave(len(batch.requests))
                self._slots.release()

    def _tell_lost(self, batch: InFlight) -> None:
        """Early answers of a batch that failed can no more be checked: whoever counts must know."""
        early = batch.exits < len(batch.sites)
        if self._observer is not None and early.any():
            nobody = np.zeros(len(early), np.bool_)
            label = np.zeros(len(early), np.int32)
            try:
                self._observer(make_record(batch, nobody, label, self._clock()))
            except Exception:
                logger.exception("the observer failed")

    def _release(self, batch: InFlight) -> None:
        for position, site in enumerate(batch.sites):
            error, label, logits = next_answer(batch)
            batch.errors[:, position], batch.predictions[:, position] = error, label
            plan = self._plan
            threshold = plan.thresholds[position] if plan.sites == batch.sites else 0.0
            for row in np.flatnonzero(~batch.released & (error < threshold)):
                if plan.exit_cap is not None and self._exits >= plan.exit_cap:
                    break
                if not batch.requests[row].exact:
                    where = self.sites[site]
                    answer = make_answer(row, label, logits, error, where.name, where.depth)
                    self._exits += 1
                    self._resolve(batch, int(row), position, answer)
        self._release_final(batch)

    def _release_final(self, batch: InFlight) -> None:
        error, label, logits = next_answer(batch)
        finished_s = self._clock()
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(logits).all(axis=1))
        for row in np.flatnonzero(~batch.released):
            if finite[row]:
                answer = make_answer(row, label, logits, error, FINAL, 1.0)
                self._resolve(batch, int(row), len(batch.sites), answer)
            else:
                batch.released_s[row] = self._clock()
                self._fail([batch.requests[row]], not_finite(logits[row]))
        confirm(batch, finite, label, logits, error)
        shadow = shadow_answers(batch, self._programs.ramps, finite) if batch.shadow else None
        if self._observer is not None:
            self._observer(make_record(batch, finite, label, finished_s, shadow))

    def _resolve(self, batch: InFlight, row: int, position: int, answer: Answer) -> None:
        batch.released[row] = True
        batch.exits[row] = position
        batch.requests[row].future.set_result(answer)
        batch.released_s[row] = self._clock()

    def _fail(self, requests: list[Request], error: BaseException) -> None:
        for request in requests:
            request.fail(error)


def _log_failure(compiled: "Future[None]") -> None:
    """Note why merged stages could not be compiled; the atomic ones go on serving."""
    if not compiled.cancelled() and compiled.exception() is not None:
        logger.error("merged stages could not be compiled", exc_info=compiled.exception())
