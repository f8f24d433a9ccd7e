"""Ramps: heads, placement under the budgets, training and calibration."""

from apparate_jax.ramps.heads import HEAD_KINDS, HeadKind, Ramp, choose_kind
from apparate_jax.ramps.placement import PlacementConfig, place
from apparate_jax.ramps.train import TrainConfig, TrainedRamps, Validation, train_ramps

__all__ = [
    "HEAD_KINDS",
    "HeadKind",
    "PlacementConfig",
    "Ramp",
    "TrainConfig",
    "TrainedRamps",
    "Validation",
    "choose_kind",
    "place",
    "train_ramps",
]
