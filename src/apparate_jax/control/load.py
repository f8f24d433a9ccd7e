"""What a batch runs, by the load that it sees. Pure, shared by the engine and replay.

An exit saves its own request's time; a ramp's cost delays everybody behind, and whoever comes until
the queue is empty: at a utilisation ``rho`` a delay of the ``w`` who wait reaches ``w / (1 - rho)``
in the mean. So a batch of ``n`` runs its ramps while their exits save as much as that costs::

    n saving >= overhead w / (1 - rho)

Where nobody waits behind, ramps always run, and feedback goes on; under saturation they never do,
and throughput is the original's. The further work of a shadow batch delays as many: at an interval
of ``every / (1 - rho)`` batches it costs about the same at any load.

``rho`` is the larger of two. One is how many requests come per second, each with its share of the
batch that serves most per second, by the profile. The other is how full batches were lately, from
one request to the most: it shows what the profile does not know of, but is too low where requests
take as long together as one by one, for batches are small there until they hardly end.

Letting others go before the rest of an answered batch (:mod:`apparate_jax.serve.deferral`) keeps
batches small, and the rest of each is still to be run. Where many take little longer than one, that
costs more than it gives once the device can hardly keep up with two at a time.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import ExitPlan

EAGER = 2
"""Batches between two shadow batches while too little is known to choose ramps by."""
OVERDUE = 4
"""A shadow batch that found no quiet moment for so many times its interval runs at the next one."""
QUIET = 64
"""Batches of one input in a row behind which nobody waited: the device is idle most of the time."""
OFTEN = 4
"""So many times as often shadow batches come then."""
MEMORY = 16
"""Batches over which the fill is averaged, exponentially."""
RATE_MEMORY = 64
"""Batches of the largest shape in whose time requests are counted, exponentially."""
FULL = 0.99
"""A fill beyond this is saturation."""
MANY = 2
"""So many further batches that wait are, too."""
MOST = 0.95
"""No more than this is taken for the utilisation by the profile: it may be wrong by as much."""
KEEPS = 0.85
"""Utilisation with two requests at a time up to which batches may be kept small."""
ALIKE = 1.1
"""So many times as long for each, two at a time are about as fast as any number."""


class Load(NamedTuple):
    """What the dispatcher sees when it forms a batch.

    Attributes:
        taken: Requests in the batch.
        waiting: Requests that still wait behind it.
        largest: The largest batch shape.
        utilisation: Of the device lately, 0..1, this batch included.
    """

    taken: int
    waiting: int
    largest: int
    utilisation: float


LoadPolicy = Callable[[ExitPlan, Load], tuple[int, ...]]
"""``policy(plan, load) -> sites``: which of the plan's ramps a batch runs."""


class Capacity(NamedTuple):
    """How fast a device serves the original model.

    Attributes:
        least_s: Per request, in batches of the shape that serves most of them.
        pair_s: Per request, two at a time; one at a time where there is only that.
        memory_s: In how much time requests are counted, exponentially.
    """

    least_s: float = 0.0
    pair_s: float = 0.0
    memory_s: float = math.inf


def capacity_of(latency: LatencyModel) -> Capacity:
    """By the measured profile, with how single runs spread around its medians."""
    took_s = {
        batch: latency.vanilla_ms(batch) / 1e3 * np.mean(latency.profile.at(batch).spread or 1.0)
        for batch in latency.batches
    }
    largest = latency.batches[-1]
    pair = min(2, largest)
    return Capacity(
        min(float(seconds / batch) for batch, seconds in took_s.items()),
        min(float(seconds / pair) for batch, seconds in took_s.items() if batch >= pair),
        float(RATE_MEMORY * took_s[largest]),
    )


class Busy(NamedTuple):
    """How busy the device was lately.

    Attributes:
        fill: How full batches were: 0 for one request, 1 for the most.
        rate_rps: Requests per second, at ``since_s``.
        since_s: When the last batch was formed.
    """

    fill: float = 0.0
    rate_rps: float = 0.0
    since_s: float = 0.0


def next_busy(busy: Busy, taken: int, largest: int, now_s: float, capacity: Capacity) -> Busy:
    """How busy it is with one more batch.

    Args:
        busy: Before it.
        taken: Requests in the batch.
        largest: The largest batch shape.
        now_s: When it is formed.
        capacity: Of the device.

    >>> next_busy(Busy(), 8, 8, 0.0, Capacity(memory_s=2.0))
    Busy(fill=0.0625, rate_rps=4.0, since_s=0.0)
    """
    fill = busy.fill + ((taken - 1) / max(largest - 1, 1) - busy.fill) / MEMORY
    kept = math.exp(min(0.0, busy.since_s - now_s) / capacity.memory_s)
    return Busy(fill, busy.rate_rps * kept + taken / capacity.memory_s, now_s)


def utilisation(busy: Busy, capacity: Capacity) -> float:
    """Of the device, 0..1.

    >>> utilisation(Busy(fill=0.2, rate_rps=50.0), Capacity(least_s=0.008))
    0.4
    """
    return max(busy.fill, min(busy.rate_rps * capacity.least_s, MOST))


def keeps_up(busy: Busy, capacity: Capacity) -> bool:
    """Whether the device serves as many as come with batches that are kept small.

    >>> keeps_up(Busy(rate_rps=50.0), Capacity(least_s=0.005, pair_s=0.01))
    True
    """
    alike = capacity.pair_s <= ALIKE * capacity.least_s
    return alike or busy.rate_rps * capacity.pair_s <= KEEPS


def always(plan: ExitPlan, load: Load) -> tuple[int, ...]:
    """All active ramps, whatever the load."""
    del load
    return plan.sites


def by_worth(plan: ExitPlan, load: Load) -> tuple[int, ...]:
    """All active ramps while they are worth what they cost those who wait, else none.

    >>> plan = ExitPlan((2, 6), (0.1, 0.1), worth=10.0)
    >>> by_worth(plan, Load(8, 9, 8, 0.5)), by_worth(plan, Load(8, 9, 8, 0.95))
    ((2, 6), ())
    """
    if load.waiting == 0:
        return plan.sites
    if load.utilisation > FULL or load.waiting >= MANY * load.largest:
        return ()
    cost = load.waiting / (1.0 - load.utilisation)
    return plan.sites if load.taken * plan.worth >= cost else ()


def shadow_due(since: int, every: int, load: Load, alone: int = 0) -> bool:
    """Whether a batch is to be a shadow batch.

    Its further work delays those behind it, so it comes the less often the busier the device is,
    but for the first ones, and waits for a moment when nobody waits; under a load that leaves none
    it comes late, and never while a whole further batch waits. Where nobody shares the device, as
    with one camera, it costs nobody anything and comes more often.

    Args:
        since: Batches since the last one.
        every: Batches between two on an idle device; 0 is never.
        load: What the batch sees.
        alone: Batches of one input in a row, this one included, behind which nobody waited.

    >>> idle, busy = Load(1, 0, 8, 0.0), Load(1, 0, 8, 0.75)
    >>> shadow_due(16, 16, idle), shadow_due(16, 16, busy), shadow_due(64, 16, busy)
    (True, False, True)
    >>> shadow_due(4, 16, idle, alone=63), shadow_due(4, 16, idle, alone=64)
    (False, True)
    """
    if every == 0 or load.waiting >= load.largest:
        return False
    if alone >= QUIET:
        return since >= every / OFTEN
    rho = min(load.utilisation, MOST) if every > EAGER else 0.0
    interval = round(every / (1.0 - rho))
    return since >= (interval if load.waiting == 0 else OVERDUE * interval)
