"""A batch on the virtual clock, and what is left of it where it is deferred.

That is the engine's rule, :mod:`apparate_jax.serve.deferral`.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.forming import Formed
from apparate_jax.serve.deferral import PIECES

Sites = tuple[int, ...]


class Kind(NamedTuple):
    """Batches of one set of ramps and one shape.

    Attributes:
        number: Of the kind.
        answers_s: From start to each answer, in the median: ascending seconds, the end last.
        spread: Factors of single runs, each as likely as the others.
    """

    number: int
    answers_s: tuple[float, ...]
    spread: tuple[float, ...]


@dataclass(slots=True)
class Batch:
    """One batch: its requests as the queue gave them, the ramps it runs, and when."""

    formed: Formed
    size: int
    sites: Sites
    shadow: bool
    hold: int
    start_s: float = 0.0
    end_s: float = 0.0


@dataclass(slots=True)
class Seen:
    """What the controller is told of a batch at its end, and the batch's number if it waits."""

    batch: Batch
    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    exits: NDArray[np.int32]
    number: int = -1


@dataclass(slots=True)
class Rest:
    """What is left of a batch whose requests all have their answers.

    Attributes:
        begun: How many batches had begun by then.
        whole_s: What it takes at once.
        pieces_s: What it takes piece by piece.
        seen: What is made of it at its end.
        started: Whether a piece was run.
    """

    begun: int
    whole_s: float
    pieces_s: deque[float]
    seen: Seen
    started: bool = False

    @property
    def left_s(self) -> float:
        """What is left of it, queued at once."""
        return sum(self.pieces_s) if self.started else self.whole_s

    def run_piece(self) -> float:
        """Run a piece; the seconds that it took."""
        self.started = True
        return self.pieces_s.popleft()


def pieces_of(stages_s: list[float]) -> deque[float]:
    """Stages as the engine runs them while nobody waits: so many at a time."""
    at_a_time = math.ceil(len(stages_s) / PIECES)
    starts = range(0, len(stages_s), at_a_time)
    return deque(sum(stages_s[start : start + at_a_time]) for start in starts)
