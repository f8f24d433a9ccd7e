"""Threshold tuning and the controller that applies it to live feedback."""

from apparate_jax.control.controller import (
    ControlConfig,
    Controller,
    Info,
    Observation,
    State,
    make_controller,
)
from apparate_jax.control.thresholds import (
    Evaluation,
    Tuning,
    evaluate_thresholds,
    oracle_saving,
    tune_thresholds,
)

__all__ = [
    "ControlConfig",
    "Controller",
    "Evaluation",
    "Info",
    "Observation",
    "State",
    "Tuning",
    "evaluate_thresholds",
    "make_controller",
    "oracle_saving",
    "tune_thresholds",
]
