"""Whose turn the device is: batches that somebody waits for go before those that are answered.

Once everybody in a batch has an early answer, what is left of it only checks them. So a batch with
ramps is **held** behind one of them until its answers were read: if nobody waits for more it is
**deferred**, and its rest runs piece by piece while nobody waits; otherwise the rest is queued at
once. Every input still runs to its end, in another order: those who come meanwhile need not wait
for work that has no hurry. No batch is begun while another is held, for it would come between
those in it who wait and the original's answer.

Thread-safe: the dispatcher begins batches and runs the rest of deferred ones, the releaser says
which are answered.
"""

import math
import threading
from collections import deque
from collections.abc import Callable

import jax

from apparate_jax.serve.in_flight import InFlight
from apparate_jax.serve.programs import Programs

PIECES = 4
"""Parts in which the rest of a deferred batch is run while nobody waits, at most."""


class Deferral:
    """The batches that are begun, and those whose rest is deferred."""

    def __init__(self, limit: int) -> None:
        """Make it with nothing begun.

        Args:
            limit: Batches that may be begun before a deferred one is due; 0: nothing is deferred.
        """
        self._limit = limit
        self._deferred: deque[tuple[InFlight, int]] = deque()  # and when, in batches begun
        self._held: InFlight | None = None
        self._waited_for: list[InFlight] = []  # on the device, and not answered yet
        self._begun = 0
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._deferred)

    def begin(self, batch: InFlight, room: float = math.inf) -> list[InFlight]:
        """Begin a batch, once none is held: its programs may be queued now.

        Args:
            batch: If it has a ``hold``, none follows until it goes on, is deferred or ended.
            room: How many may leave early before further early answers are checked.

        Returns:
            Deferred batches whose rest is to be queued first: those that have waited long enough,
            and so many that everybody in this one may leave once they are checked.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._held is None)
            self._begun += 1
            if not batch.ended:
                self._held = batch if batch.hold else None
                self._waited_for.append(batch)
            due = []
            while self._deferred:
                oldest, begun = self._deferred[0]
                if room >= len(batch.requests) and self._begun - begun <= self._limit:
                    break
                room += len(oldest.requests)
                due.append(self._deferred.popleft()[0])
            return due

    def go_on(self) -> None:
        """Somebody waits for the original's answer: the rest of the held batch is queued."""
        with self._changed:
            self._held = None
            self._changed.notify_all()

    def defer(self, batch: InFlight) -> None:
        """Everybody in the held batch is answered: its rest has time."""
        with self._changed:
            batch.deferred = True
            self._deferred.append((batch, self._begun))
            self._forget(batch)

    def end(self, batch: InFlight) -> None:
        """A batch ran to its end, or was given up, which may be before it is begun."""
        with self._changed:
            batch.ended = True
            self._forget(batch)

    def _forget(self, batch: InFlight) -> None:
        if batch in self._waited_for:
            self._waited_for.remove(batch)
        if self._held is batch:
            self._held = None
        self._changed.notify_all()

    def has_time(self) -> bool:
        """Whether a deferred batch waits, and nobody waits for what is on the device."""
        with self._changed:
            return bool(self._deferred) and not self._waited_for

    def oldest(self) -> InFlight:
        """The deferred batch that has waited for longest."""
        with self._changed:
            return self._deferred[0][0]

    def take(self, batch: InFlight) -> None:
        """The rest of a deferred batch is queued whole."""
        with self._changed:
            self._deferred = deque(one for one in self._deferred if one[0] is not batch)

    def drain(self) -> list[InFlight]:
        """Wait until everybody is answered; every deferred batch, for their rest to be queued."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waited_for)
            left = [batch for batch, _ in self._deferred]
            self._deferred.clear()
            return left


def queue_ramps(batch: InFlight) -> None:
    """Queue the programs of a batch on the device, up to where the rest is held."""
    assert batch.course is not None  # it is on the device
    for answer in batch.course.answers(batch.course.route.behind(batch.hold)):
        batch.answers.put(answer)


def queue_rest(batch: InFlight) -> None:
    """Queue all programs of a batch that are not queued yet; an error goes to its answers."""
    assert batch.course is not None  # it is on the device
    try:
        for answer in batch.course.answers():
            batch.answers.put(answer)
    except Exception as error:
        batch.answers.put(error)


def run_piece(batch: InFlight, programs: Programs, clock: Callable[[], float]) -> bool:
    """Run a part of what is left of a batch, and wait for it; whether nothing is left.

    The stages behind the hold are run one by one or a few at a time, so that who comes
    meanwhile waits for a part of them only. An error goes to the batch's answers.
    """
    course = batch.course
    assert course is not None  # it is on the device
    batch.deferred_s += clock() - batch.rests_s
    answer = None
    try:
        if course.route.merged:
            course.go_on_by(programs.finer(course.route))
        for _ in range(min(course.left, math.ceil(course.rest(batch.hold) / PIECES))):
            answer = course.step()
            if answer is not None:
                batch.answers.put(answer)
        jax.block_until_ready(course.carry if answer is None else answer)
    except Exception as error:
        batch.answers.put(error)
        return True
    batch.rests_s = clock()
    return not course.left
