"""What each batch runs: which ramps, as a shadow batch or not, and behind which of them it is held.

By the plan in force, the load that it sees, and where inputs left lately; shared by the engine and
replay.

A batch is held once, where that frees most of the device's time: behind the ramp after which the
chance that everybody is answered, times what is left of the model, is largest. Behind an early ramp
much is left and few are answered, behind a late one it is the other way round.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import (
    Busy,
    Capacity,
    Load,
    LoadPolicy,
    capacity_of,
    keeps_up,
    next_busy,
    shadow_due,
    utilisation,
)
from apparate_jax.core import ExitPlan
from apparate_jax.serve.engine_config import EngineConfig

LEAST = 0.06
"""Share of the model's cost behind a ramp that it is worth to hold."""
WORTH = 0.02
"""Share of the model's cost that a hold must free on average: about what it costs."""
REMEMBERED = 256
"""Inputs over which the shares of those who left are averaged."""


class Left(NamedTuple):
    """Where inputs left lately.

    Attributes:
        sites: Active sites, R of them.
        shares: f64[R], of inputs that left at each ramp or before it.
        inputs: How many these are of, at most :data:`REMEMBERED`.
    """

    sites: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    inputs: int = 0


def next_left(left: Left, sites: tuple[int, ...], exits: NDArray[np.int32]) -> Left:
    """What is known of it after a batch.

    Args:
        left: Before it.
        sites: That it ran with; other ones than before begin anew.
        exits: i32[n], position of the ramp that answered each input, R for the original model.

    >>> next_left(Left((2, 6), (1.0, 1.0), 1), (2, 6), np.array([0, 1, 2])).shares
    (0.5, 0.75)
    """
    if not sites or not len(exits):
        return left
    if sites != left.sites:
        left = Left(sites, (0.0,) * len(sites))
    inputs = min(left.inputs + len(exits), REMEMBERED)
    weight = len(exits) / max(inputs, len(exits))
    now = np.cumsum(np.bincount(exits, minlength=len(sites) + 1)[: len(sites)]) / len(exits)
    shares = tuple(
        old + (new - old) * weight for old, new in zip(left.shares, now.tolist(), strict=True)
    )
    return Left(sites, shares, inputs)


def hold_of(depths: Sequence[float], sites: Sequence[int], taken: int, left: Left) -> int:
    """After how many of a batch's ramps it is to be held; 0 if that is not worth it.

    Args:
        depths: Of all sites, ascending.
        sites: Active ones.
        taken: Requests in the batch.
        left: Where inputs left lately: of other sites, or of none, it says nothing, and the batch
            is held behind the last ramp that leaves something.

    >>> hold_of([0.2, 0.5, 0.9], [0, 1, 2], 1, Left((0, 1, 2), (0.3, 0.7, 0.9), 256))
    2
    """
    worth = [site < len(depths) and depths[site] <= 1.0 - LEAST for site in sites]
    if not any(worth) or tuple(sites) != left.sites:
        return sum(worth)
    gains = [
        (1.0 - depths[site]) * share**taken if enough else -1.0
        for site, share, enough in zip(sites, left.shares, worth, strict=True)
    ]
    best = int(np.argmax(gains))
    return best + 1 if gains[best] >= WORTH else 0


class Choice(NamedTuple):
    """What a batch runs.

    Attributes:
        sites: Of its ramps.
        shadow: Whether the heads of the other ramps follow the original's answer.
        hold: Ramps after which the rest is queued only once their answers were read; 0: at once.
    """

    sites: tuple[int, ...]
    shadow: bool
    hold: int


class Chooser:
    """Chooses for one batch after another; what it saw may be told from another thread."""

    def __init__(
        self,
        config: EngineConfig,
        policy: LoadPolicy,
        largest: int,
        depths: Sequence[float],
        latency: LatencyModel | None = None,
    ) -> None:
        """Begin without a batch.

        Args:
            config: Of the engine.
            policy: Which of the plan's ramps a batch runs.
            largest: The largest batch shape.
            depths: Of all sites, ascending.
            latency: From the profile; without one only the fill of batches says how busy the device
                is.
        """
        self._depths = tuple(depths)
        self._timed = config.batching.timed
        self._defers = config.deferrals > 0
        self._policy = policy
        self._largest = largest
        self._since_shadow = 0  # batches
        self._alone = 0  # batches of one input in a row behind which nobody waited
        self._capacity = Capacity() if latency is None else capacity_of(latency)
        self._busy = Busy()
        self._left = Left()

    def saw(self, sites: tuple[int, ...], exits: NDArray[np.int32]) -> None:
        """A batch was answered.

        Args:
            sites: That it ran with, R of them.
            exits: i32[n], position of the ramp that answered each input, R for the original model.
        """
        self._left = next_left(self._left, sites, exits)

    def next(
        self, plan: ExitPlan, taken: int, waiting: int, now_s: float, *, exact: bool = False
    ) -> Choice:
        """Choose for the next batch.

        Args:
            plan: In force.
            taken: Requests in the batch.
            waiting: Requests that wait behind it.
            now_s: When it is formed.
            exact: Whether any in it may not leave early.
        """
        busy = next_busy(self._busy, taken, self._largest, now_s, self._capacity)
        load = Load(taken, waiting, self._largest, utilisation(busy, self._capacity))
        self._busy = busy
        sites = self._policy(plan, load)
        self._since_shadow += 1
        self._alone = self._alone + 1 if taken == 1 and waiting == 0 else 0
        shadow = shadow_due(self._since_shadow, plan.shadow_every, load, self._alone)
        if shadow and waiting and self._timed:
            shadow = False  # it would hold up requests that were promised an answer in time
        if shadow:
            self._since_shadow = 0
        leaves = any(threshold > 0.0 for threshold in plan.thresholds)
        may_hold = self._defers and leaves and not exact and keeps_up(busy, self._capacity)
        hold = hold_of(self._depths, sites, taken, self._left) if may_hold else 0
        return Choice(sites, shadow, hold)
