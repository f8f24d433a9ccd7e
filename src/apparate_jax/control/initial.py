"""Which ramps are active at the start: chosen with the thresholds that they would get.

Evenly spaced ramps are the paper's start, and then feedback moves them. The held-out samples of
training already say what each set of ramps would save under the accuracy constraint, so the default
starts there; on reviews that is worth more than a third ramp (docs/how-it-works.md).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control.adjust import BUDGET_FRAC
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.thresholds import Tuning, tune_thresholds
from apparate_jax.core import Site
from apparate_jax.ramps.heads import Ramp
from apparate_jax.ramps.placement import PlacementConfig, place, place_by_validation
from apparate_jax.ramps.train import Validation

ASSUMED_COST = 0.01
"""What a ramp is taken to add to every answer, as a share of the model's time."""


def initial_sites(
    sites: Sequence[Site],
    ramps: Sequence[Ramp],
    validation: Validation | None,
    placement: PlacementConfig,
    control: ControlConfig,
) -> tuple[int, ...]:
    """The sites whose ramps run at the start.

    Args:
        sites: All sites of the model.
        ramps: Trained ramps, ascending by site.
        validation: What they say about held-out samples; without it they are evenly spaced.
        placement: Policy and budgets. The ramp budget is checked on measured programs, later.
        control: The accuracy constraint.

    Returns:
        Site indices, ascending.
    """
    if placement.policy == "even" or validation is None or placement.max_ramps == 0:
        return place([sites[r.site] for r in ramps], [r.num_bytes for r in ramps], placement)
    room = placement.memory_budget_mb * 2**20 / placement.max_ramps
    useful = [
        column
        for column, ramp in enumerate(ramps)
        if sites[ramp.site].depth <= placement.deepest and ramp.num_bytes <= room
    ]
    if not useful:
        return ()

    def tune(
        errors: NDArray[np.float32],
        agrees: NDArray[np.bool_],
        savings: NDArray[np.float64],
        max_disagreement: float,
    ) -> Tuning:
        return tune_thresholds(errors, agrees, savings, max_disagreement, control.method)

    chosen = place_by_validation(
        validation.errors[:, useful],
        validation.agrees[:, useful],
        [1.0 - sites[ramps[column].site].depth for column in useful],
        tune,
        max_ramps=placement.max_ramps,
        max_disagreement=BUDGET_FRAC * control.max_disagreement,
        costs=[ASSUMED_COST] * len(useful),
    )
    return tuple(ramps[useful[position]].site for position in chosen.ramps)
