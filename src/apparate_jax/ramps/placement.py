"""Which sites get a ramp at the start: evenly spaced, under the budgets.

The paper starts with as many ramps as the budget allows, evenly spaced, and lets feedback move them
(Apparate, SOSP'24, section 3.1). The ramp budget bounds what ramps add to the latency of an input
that never exits, as a share of the model's own; the memory budget bounds their parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Site
from apparate_jax.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PlacementConfig:
    """Budgets of the initial placement.

    Attributes:
        ramp_budget: What all active ramps may add to the worst-case latency, as a share of it.
        memory_budget_mb: What their parameters may take, in MiB.
        max_ramps: At most this many; two or three well-placed ramps reach most of what many do.
        deepest: Sites deeper than this are left out: nothing is saved there.
    """

    ramp_budget: float = 0.02
    memory_budget_mb: float = 64.0
    max_ramps: int = 3
    deepest: float = 0.97

    def __post_init__(self) -> None:
        if not 0.0 <= self.ramp_budget <= 1.0 or not 0.0 < self.deepest <= 1.0:
            raise ConfigError(
                f"ramp_budget is {self.ramp_budget} and deepest {self.deepest}, expected 0..1"
            )
        if self.max_ramps < 0 or self.memory_budget_mb <= 0:
            raise ConfigError(
                f"max_ramps is {self.max_ramps} and memory_budget_mb {self.memory_budget_mb}, "
                "expected at least 0 and above 0"
            )


def evenly(depths: Sequence[float], count: int) -> tuple[int, ...]:
    """``count`` of the candidates whose depths are nearest to an even spacing over 0..1.

    Args:
        depths: Depth of each candidate, ascending.
        count: How many to choose, at most as many as there are.

    Returns:
        Positions of the chosen candidates, ascending.

    >>> evenly([0.1, 0.2, 0.4, 0.6, 0.8, 0.9], 2)
    (2, 3)
    """
    values = np.asarray(depths)
    chosen: list[int] = []
    for target in (np.arange(count) + 1) / (count + 1):
        order = np.argsort(np.abs(values - target), kind="stable")
        chosen.append(next(int(i) for i in order if int(i) not in chosen))
    return tuple(sorted(chosen))


def place(
    sites: Sequence[Site],
    cost_frac: Sequence[float],
    size_bytes: Sequence[int],
    config: PlacementConfig | None = None,
) -> tuple[int, ...]:
    """As many evenly spaced ramps as the budgets allow.

    Args:
        sites: Candidates: sites with a trained ramp, ascending.
        cost_frac: What a ramp at each of them adds to the latency of an input that never exits,
            as a share of the model's own: measured, its head and the split of the program.
        size_bytes: Bytes of each ramp's parameters.
        config: Budgets.

    Returns:
        Site indices, ascending; empty if not even one ramp fits.
    """
    config = config or PlacementConfig()
    useful = [i for i, site in enumerate(sites) if site.depth <= config.deepest]
    costs: NDArray[np.float64] = np.asarray(cost_frac, np.float64)
    sizes: NDArray[np.int64] = np.asarray(size_bytes, np.int64)
    for count in range(min(config.max_ramps, len(useful)), 0, -1):
        positions = evenly([sites[i].depth for i in useful], count)
        chosen = [useful[p] for p in positions]
        fits_time = costs[chosen].sum() <= config.ramp_budget
        fits_memory = sizes[chosen].sum() <= config.memory_budget_mb * 2**20
        if fits_time and fits_memory:
            return tuple(sites[i].index for i in chosen)
    return ()
