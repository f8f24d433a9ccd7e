"""What each batch runs: which ramps, as a shadow batch or not, held behind its ramps or not.

By the plan in force and the load that it sees; shared by the engine and replay.
"""

from collections.abc import Sequence
from typing import NamedTuple

from apparate_jax.control.load import Load, LoadPolicy, next_fill, shadow_due
from apparate_jax.core import ExitPlan
from apparate_jax.serve.engine_config import EngineConfig

GRACE = 0.06
"""Share of the model's cost that is queued behind the last ramp before the rest is held."""


def grace_site(depths: Sequence[float], sites: Sequence[int]) -> int | None:
    """The site behind which the rest of a batch is held, if it is: some work behind the last ramp.

    The device does that while the host reads the ramp's answers, so that it never waits for it.

    Args:
        depths: Of all sites, ascending.
        sites: Active ones.

    Returns:
        None where there is no ramp, or too little behind the last one to be held.

    >>> grace_site([0.2, 0.4, 0.42, 0.5, 0.99], [0, 1]), grace_site([0.2, 0.99], [0, 1])
    (3, None)
    """
    if not sites or sites[-1] >= len(depths):
        return None
    wanted = depths[sites[-1]] + GRACE
    later = (site for site, depth in enumerate(depths) if wanted <= depth <= 1.0 - GRACE)
    return next(later, None)


class Choice(NamedTuple):
    """What a batch runs.

    Attributes:
        sites: Of its ramps.
        shadow: Whether the heads of the other ramps follow the original's answer.
        holds: Whether the rest of it is queued only once the last ramp's answers were read.
    """

    sites: tuple[int, ...]
    shadow: bool
    holds: bool


class Chooser:
    """Chooses for one batch after another."""

    def __init__(
        self, config: EngineConfig, policy: LoadPolicy, largest: int, depths: Sequence[float]
    ) -> None:
        """Begin without a batch.

        Args:
            config: Of the engine.
            policy: Which of the plan's ramps a batch runs.
            largest: The largest batch shape.
            depths: Of all sites, ascending.
        """
        self._depths = tuple(depths)
        self._held_at: dict[tuple[int, ...], int | None] = {}
        self._timed = config.batching.timed
        self._defers = config.deferrals > 0
        self._policy = policy
        self._largest = largest
        self._since_shadow = 0  # batches
        self._fill = 0.0  # of the last batches

    def next(self, plan: ExitPlan, taken: int, waiting: int, *, exact: bool = False) -> Choice:
        """Choose for the next batch.

        Args:
            plan: In force.
            taken: Requests in the batch.
            waiting: Requests that wait behind it.
            exact: Whether any in it may not leave early.
        """
        self._fill = next_fill(self._fill, taken, self._largest)
        sites = self._policy(plan, Load(taken, waiting, self._largest, self._fill))
        self._since_shadow += 1
        shadow = shadow_due(self._since_shadow, plan.shadow_every, waiting, self._largest)
        if shadow and waiting and self._timed:
            shadow = False  # it would hold up requests that were promised an answer in time
        if shadow:
            self._since_shadow = 0
        leaves = bool(sites) and any(threshold > 0.0 for threshold in plan.thresholds)
        holds = self._defers and leaves and not exact and self.held_at(sites) is not None
        return Choice(sites, shadow, holds)

    def held_at(self, sites: tuple[int, ...]) -> int | None:
        """:func:`grace_site` of these ramps."""
        if sites not in self._held_at:
            self._held_at[sites] = grace_site(self._depths, sites)
        return self._held_at[sites]
