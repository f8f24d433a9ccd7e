"""Threshold tuning and the controller that applies it to live feedback."""

from apparate_jax.control.config import ControlConfig
from apparate_jax.control.controller import State, make_controller
from apparate_jax.control.interface import Controller, Info, Observation, Shadow
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
    "Shadow",
    "State",
    "Tuning",
    "evaluate_thresholds",
    "make_controller",
    "oracle_saving",
    "tune_thresholds",
]
