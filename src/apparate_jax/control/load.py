"""What a batch runs, by the load that it sees. Pure, shared by the engine and replay.

An exit saves its own request's time; a ramp's cost delays everybody behind. In a queue of
utilisation rho (M/D/1) an overhead ``d`` adds ``d k(rho)`` to every answer behind it, with
``k(rho) = 1 + (2 rho - rho^2) / (2 (1 - rho)^2)``: 2.5 d at half load, 13 d at 80 %, without bound
at saturation. So a batch of ``n`` runs its ramps while what their exits save is worth more than
what they cost the ``w`` who wait behind it::

    n saving >= w overhead k(fill)

``fill`` is how full batches were lately, which is the utilisation that a batching server has: where
nobody waits behind, ramps always run, and feedback goes on; under saturation they never do, and
throughput is the original's.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from apparate_jax.core import ExitPlan

OVERDUE = 4
"""A shadow batch that found no quiet moment for so many times its interval runs at the next one."""
QUIET = 64
"""Batches of one input in a row behind which nobody waited: the device is idle most of the time."""
OFTEN = 4
"""So many times as often shadow batches come then."""
MEMORY = 16
"""Batches over which the fill is averaged, exponentially."""
FULL = 0.99
"""A fill beyond this is saturation."""


class Load(NamedTuple):
    """What the dispatcher sees when it forms a batch.

    Attributes:
        taken: Requests in the batch.
        waiting: Requests that still wait behind it.
        largest: The largest batch shape.
        fill: How full batches were lately, 0..1, this one included.
    """

    taken: int
    waiting: int
    largest: int
    fill: float


LoadPolicy = Callable[[ExitPlan, Load], tuple[int, ...]]
"""``policy(plan, load) -> sites``: which of the plan's ramps a batch runs."""


def next_fill(fill: float, taken: int, largest: int) -> float:
    """How full batches were lately, after one more.

    >>> next_fill(0.0, 8, 8)
    0.0625
    """
    return fill + (taken / largest - fill) / MEMORY


def always(plan: ExitPlan, load: Load) -> tuple[int, ...]:
    """All active ramps, whatever the load."""
    del load
    return plan.sites


def by_worth(plan: ExitPlan, load: Load) -> tuple[int, ...]:
    """All active ramps while they are worth what they cost those who wait, else none.

    >>> plan = ExitPlan((2, 6), (0.1, 0.1), worth=10.0)
    >>> by_worth(plan, Load(8, 4, 8, 0.5)), by_worth(plan, Load(8, 4, 8, 0.95))
    ((2, 6), ())
    """
    if load.waiting == 0:
        return plan.sites
    if load.waiting >= load.largest or load.fill > FULL:
        return ()
    cost = load.waiting * amplification(load.fill)
    return plan.sites if load.taken * plan.worth >= cost else ()


def amplification(rho: float) -> float:
    """By how much an overhead grows for those behind it in an M/D/1 queue of utilisation ``rho``.

    >>> amplification(0.5), round(amplification(0.8))
    (2.5, 13)
    """
    return 1.0 + (2.0 * rho - rho * rho) / (2.0 * (1.0 - rho) ** 2)


def shadow_due(since: int, every: int, waiting: int, largest: int, alone: int = 0) -> bool:
    """Whether a batch is to be a shadow batch.

    Its further work delays those behind it, so it waits for a moment when nobody waits; under a
    load that leaves none it comes late, and never while a whole further batch waits. Where nobody
    shares the device, as with one camera, it costs nobody anything and comes more often.

    Args:
        since: Batches since the last one.
        every: Batches between two; 0 is never.
        waiting: Requests that wait behind the batch.
        largest: The largest batch shape.
        alone: Batches of one input in a row, this one included, behind which nobody waited.

    >>> shadow_due(16, 16, 0, 8), shadow_due(16, 16, 2, 8), shadow_due(64, 16, 2, 8)
    (True, False, True)
    >>> shadow_due(4, 16, 0, 8, alone=63), shadow_due(4, 16, 0, 8, alone=64)
    (False, True)
    """
    interval = math.ceil(every / OFTEN) if alone >= QUIET else every
    if every == 0 or since < interval or waiting >= largest:
        return False
    return waiting == 0 or since >= OVERDUE * every
