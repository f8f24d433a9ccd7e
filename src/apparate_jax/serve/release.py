"""The release side of the engine: answers out as their ramps complete, and the batch's record.

It waits for each packed answer of a batch in turn; whoever's error is below the ramp's threshold
gets its answer there and then, the rest goes on; at the end every input has the original model's
answer too. It runs on the engine's releaser thread alone.
"""

import logging
import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import FINAL, Answer, BatchRecord, ExitPlan, ShadowAnswers, Site
from apparate_jax.serve.in_flight import (
    InFlight,
    confirm,
    make_answer,
    make_record,
    next_answer,
    not_finite,
    shadow_answers,
)

logger = logging.getLogger(__name__)

Observer = Callable[[BatchRecord], None]


class Release:
    """Gives a batch's answers to those who wait, and tells the observer."""

    def __init__(
        self,
        sites: Sequence[Site],
        ramps: Collection[int],
        plan: Callable[[], ExitPlan],
        observer: Observer | None,
        clock: Callable[[], float],
    ) -> None:
        """Start to count early answers.

        Args:
            sites: All sites of the model.
            ramps: Sites with a trained ramp.
            plan: The plan in force.
            observer: Called with each completed batch's record.
            clock: Monotonic seconds.
        """
        self._sites = sites
        self._ramps = ramps
        self._plan = plan
        self._observer = observer
        self._clock = clock
        self._exits = 0  # early answers since the start

    def room(self) -> float:
        """How many more may leave early before further early answers are checked."""
        cap = self._plan().exit_cap
        return math.inf if cap is None else cap - self._exits

    def ramps(self, batch: InFlight, stop: int | None = None) -> None:
        """Answer those in a batch who may leave at its ramps that were not read yet.

        Args:
            batch: On the device.
            stop: The first ramp that is left for later; none is if None.

        Raises:
            Exception: Whatever ended the batch on the device.
        """
        for position in range(len(batch.ready_s), len(batch.sites) if stop is None else stop):
            error, label, logits = next_answer(batch)
            batch.ready_s.append(self._clock())
            batch.errors[:, position], batch.predictions[:, position] = error, label
            plan = self._plan()
            threshold = plan.thresholds[position] if plan.sites == batch.sites else 0.0
            for row in np.flatnonzero(~batch.released & (error < threshold)):
                if plan.exit_cap is not None and self._exits >= plan.exit_cap:
                    break
                if not batch.requests[row].exact:
                    where = self._sites[batch.sites[position]]
                    answer = make_answer(row, label, logits, error, where.name, where.depth)
                    self._exits += 1
                    self._resolve(batch, int(row), position, answer)

    def final(self, batch: InFlight) -> None:
        """Answer everybody else in a batch with the original's answer, and tell the observer.

        Raises:
            Exception: Whatever ended the batch on the device.
        """
        error, label, logits = next_answer(batch)
        finished_s = self._clock()
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(logits).all(axis=1))
        for row in np.flatnonzero(~batch.released):
            if finite[row]:
                answer = make_answer(row, label, logits, error, FINAL, 1.0)
                self._resolve(batch, int(row), len(batch.sites), answer)
            else:
                batch.released_s[row] = self._clock()
                batch.requests[row].fail(not_finite(logits[row]))
        confirm(batch, finite, label, logits, error)
        self._tell(make_record(batch, finite, label, finished_s, self._shadow(batch, finite)))

    def _shadow(self, batch: InFlight, finite: NDArray[np.bool_]) -> ShadowAnswers | None:
        """What the inactive ramps say; if they fail, the batch was answered and checked already."""
        try:
            return shadow_answers(batch, self._ramps, finite) if batch.shadow else None
        except Exception:
            logger.exception("the inactive ramps failed: nothing is learnt of them from this batch")
            return None

    def _tell(self, record: BatchRecord) -> None:
        """Tell the observer. It failing is no failure of the batch: a record is given only once."""
        try:
            if self._observer is not None:
                self._observer(record)
        except Exception:
            logger.exception("the observer failed")

    def _resolve(self, batch: InFlight, row: int, position: int, answer: Answer) -> None:
        batch.released[row] = True
        batch.exits[row] = position
        batch.requests[row].future.set_result(answer)
        batch.released_s[row] = self._clock()

    def tell_lost(self, batch: InFlight) -> None:
        """Early answers of a batch that failed can no more be checked: whoever counts must know."""
        early = batch.exits < len(batch.sites)
        if self._observer is not None and early.any():
            nobody = np.zeros(len(early), np.bool_)
            label = np.zeros(len(early), np.int32)
            self._tell(make_record(batch, nobody, label, self._clock()))
