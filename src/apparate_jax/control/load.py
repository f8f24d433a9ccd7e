"""What a batch runs, by the load that it sees. Pure, shared by the engine and replay.

An exit saves its own request's time; a ramp's cost delays everybody behind. In a queue of
utilisation rho (M/D/1) an overhead ``d`` adds ``d (1 + (2 rho - rho^2) / (2 (1 - rho)^2))`` to
every answer: 2.5 d at half load, 13 d at 80 %, without bound at saturation. There, ramps cost
throughput and help nobody, so a batch with a whole further batch waiting behind it runs as the
single program.
"""

from collections.abc import Callable

OVERDUE = 4
"""A shadow batch that found no quiet moment for so many times its interval runs at the next one."""

LoadPolicy = Callable[[tuple[int, ...], int, int], tuple[int, ...]]
"""``policy(sites, waiting, largest) -> sites``: the ramps that a batch runs.

``sites`` are the active ones, ``waiting`` the requests that still wait behind the batch, and
``largest`` the largest batch shape.
"""


def always(sites: tuple[int, ...], waiting: int, largest: int) -> tuple[int, ...]:
    """All active ramps, whatever the load."""
    del waiting, largest
    return sites


def unless_saturated(sites: tuple[int, ...], waiting: int, largest: int) -> tuple[int, ...]:
    """All active ramps, but none once a whole further batch waits.

    >>> unless_saturated((2, 6), 3, 8), unless_saturated((2, 6), 8, 8)
    ((2, 6), ())
    """
    return sites if waiting < largest else ()


def shadow_due(since: int, every: int, waiting: int, largest: int) -> bool:
    """Whether a batch is to be a shadow batch.

    Its further work delays those behind it, so it waits for a moment when nobody waits; under a
    load that leaves none it comes late, and never while a whole further batch waits.

    Args:
        since: Batches since the last one.
        every: Batches between two; 0 is never.
        waiting: Requests that wait behind the batch.
        largest: The largest batch shape.

    >>> shadow_due(16, 16, 0, 8), shadow_due(16, 16, 2, 8), shadow_due(64, 16, 2, 8)
    (True, False, True)
    """
    if every == 0 or since < every or waiting >= largest:
        return False
    return waiting == 0 or since >= OVERDUE * every
