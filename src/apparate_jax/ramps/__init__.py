"""Ramps: heads, placement under the budgets, training and calibration."""

from apparate_jax.ramps.config import TrainConfig
from apparate_jax.ramps.heads import HEAD_KINDS, HEAD_STYLES, HeadKind, HeadStyle, Ramp, choose_kind
from apparate_jax.ramps.placement import (
    Placement,
    PlacementConfig,
    place,
    place_by_validation,
)
from apparate_jax.ramps.train import TrainedRamps, Validation, train_ramps

__all__ = [
    "HEAD_KINDS",
    "HEAD_STYLES",
    "HeadKind",
    "HeadStyle",
    "Placement",
    "PlacementConfig",
    "Ramp",
    "TrainConfig",
    "TrainedRamps",
    "Validation",
    "choose_kind",
    "place",
    "place_by_validation",
    "train_ramps",
]
