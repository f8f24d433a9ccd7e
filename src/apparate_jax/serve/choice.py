"""What each batch runs: which ramps, as a shadow batch or not, held behind its ramps or not.

By the plan in force and the load that it sees; shared by the engine and replay.
"""

from collections.abc import Sequence
from typing import NamedTuple

from apparate_jax.control.load import Load, LoadPolicy, next_fill, shadow_due
from apparate_jax.core import ExitPlan
from apparate_jax.serve.engine_config import EngineConfig

LEAST = 0.06
"""Share of the model's cost behind the last ramp that it is worth to hold."""


def is_worth_holding(depths: Sequence[float], sites: Sequence[int]) -> bool:
    """Whether enough is left behind the last of these ramps to wait for its answers before it.

    Args:
        depths: Of all sites, ascending.
        sites: Active ones.

    >>> is_worth_holding([0.2, 0.96], [0]), is_worth_holding([0.2, 0.96], [0, 1])
    (True, False)
    """
    return bool(sites) and sites[-1] < len(depths) and depths[sites[-1]] <= 1.0 - LEAST


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
        leaves = any(threshold > 0.0 for threshold in plan.thresholds)
        may_hold = self._defers and leaves and not exact
        return Choice(sites, shadow, may_hold and is_worth_holding(self._depths, sites))
