"""Feedback off the serving path: completed batches in, plans out, on a thread of their own.

The engine hands over each batch's record; the controller looks at it here and the engine takes the
new thresholds up with its next release. If the controller fails, nothing exits any more: that is
always right, only slow.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable

from apparate_jax.control.interface import Controller, Info, Observation
from apparate_jax.core import BatchRecord, ExitPlan
from apparate_jax.serve.engine import Engine
from apparate_jax.serve.state_store import StateStore

logger = logging.getLogger(__name__)

OnDecision = Callable[[ExitPlan, Info], None]


class Feedback:
    """Runs a controller on an engine's records. Make it, give it to the engine, then attach."""

    def __init__(
        self,
        controller: Controller,
        on_decision: OnDecision | None = None,
        store: StateStore | None = None,
    ) -> None:
        """Prepare the controller's state: the one that was saved, else a new one.

        Args:
            controller: The policy.
            on_decision: Called on this thread with each decision that changed the set or that
                something was done for, and what it rests on.
            store: Where the state is kept.
        """
        self._controller = controller
        self._store = store
        saved = None if store is None else store.load()
        self._state = controller.init() if saved is None else controller.resume(saved)
        self._on_decision = on_decision
        self._records: queue.SimpleQueue[BatchRecord | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed = False

    @property
    def plan(self) -> ExitPlan:
        """The plan that the state asks for."""
        return self._controller.plan(self._state)

    def observe(self, record: BatchRecord) -> None:
        """Take a batch's record; returns at once. This is the engine's observer."""
        if not self._failed:  # else nobody takes them, and they would pile up
            self._records.put(record)

    def attach(self, engine: Engine) -> None:
        """Start deciding for an engine."""
        self._thread = threading.Thread(
            target=self._run, args=(engine,), name="apparate-control", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Finish what was observed, save the state, and stop."""
        self._records.put(None)
        if self._thread is not None:
            self._thread.join()
        if self._store is not None:
            self._store.save(self._state)

    def _run(self, engine: Engine) -> None:
        try:
            engine.set_plan(self.plan)
            while (record := self._records.get()) is not None:
                before, begun_s = engine.plan, time.monotonic()
                plan, self._state, info = self._controller.update(
                    self._state, Observation.of(record)
                )
                if plan != before:
                    engine.set_plan(plan)
                told = plan.sites != before.sites or info != Info()
                if told and self._on_decision is not None:
                    took_s = time.monotonic() - begun_s
                    self._on_decision(plan, info._replace(took_s=took_s))
                if self._store is not None:
                    self._store.offer(self._state)
        except BaseException:
            logger.exception("the controller failed: no answer exits early any more")
            self._failed = True
            engine.set_plan(ExitPlan.closed(engine.plan.sites))
