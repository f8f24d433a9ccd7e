"""Checkpoints on disk of one tiny model with different parameters, so that answers tell which."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from apparate_jax.checkpoint import Checkpoint, save_checkpoint
from apparate_jax.control.config import ControlConfig
from apparate_jax.graph import trace
from apparate_jax.models.load import load_model
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve.inference import Served
from apparate_jax.serve.repository import ModelConfig
from apparate_jax.serve.service import ServiceConfig
from tests.cli.tiny import REFERENCE
from tests.serve import models

SERVICE = ServiceConfig(
    batch_sizes=(1, 2),
    control=ControlConfig(window=256, tune_every=32),
    placement=PlacementConfig(ramp_budget=100.0),
)
EXAMPLE = {"x": np.linspace(-1.0, 1.0, models.WIDTH, dtype=np.float32)}


def save(path: Path, times: float = 1.0, *, ramps: bool = True) -> Path:
    """Write a checkpoint whose head is ``times`` the model's own."""
    model = load_model(REFERENCE)
    params = {**model.params, "head": np.float32(times) * np.asarray(model.params["head"])}
    model = replace(model, params=params)
    program = trace(model.apply, model.params, *model.example_inputs(2))
    made = tuple(models.ramps(program)) if ramps else ()
    active = tuple(ramp.site for ramp in made)
    save_checkpoint(path, Checkpoint(model, program.sites, made, active))
    return path


def config(path: Path, name: str = "tiny", **changes: object) -> ModelConfig:
    """Served at two batch sizes."""
    return ModelConfig(name, path, SERVICE, **changes)  # type: ignore[arg-type]


def times_of(served: Served) -> float:
    """How many times the model's own head the one is that answers."""
    scores = served._engine.submit(EXAMPLE, exact=True).result(30).scores
    model = load_model(REFERENCE)
    own = jax.jit(model.apply)(model.params, EXAMPLE["x"][None])
    return round(float(scores[0] / own[0, 0]), 3)
