"""Which of the active ramps a batch runs, by the load that it sees. Pure, shared with replay.

An exit saves its own request's time; a ramp's cost delays everybody behind. In a queue of
utilisation rho (M/D/1) an overhead ``d`` adds ``d (1 + (2 rho - rho^2) / (2 (1 - rho)^2))`` to
every answer: 2.5 d at half load, 13 d at 80 %, without bound at saturation. There, ramps cost
throughput and help nobody, so a batch with a whole further batch waiting behind it runs as the
single program.
"""

from collections.abc import Callable

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
