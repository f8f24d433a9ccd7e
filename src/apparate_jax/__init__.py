"""Serve any Flax or JAX classifier with early answers.

``trace`` finds the cut vertices of a model's computation, ramps are trained there on the frozen
model's own answers, and the engine releases easy answers early while every input runs to the end.
"""

from apparate_jax.control import tune_thresholds
from apparate_jax.core import Answer, ExitPlan, ImagePreprocess, InputSpec, Model, Profile, Site
from apparate_jax.data import ArrayDataset, Dataset, load_data
from apparate_jax.errors import ApparateError
from apparate_jax.graph import Program, Stage, trace
from apparate_jax.models import (
    from_equinox,
    from_function,
    from_hf,
    from_linen,
    from_nnx,
    load_model,
)
from apparate_jax.ramps import train_ramps

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "ApparateError",
    "ArrayDataset",
    "Dataset",
    "ExitPlan",
    "ImagePreprocess",
    "InputSpec",
    "Model",
    "Profile",
    "Program",
    "Site",
    "Stage",
    "from_equinox",
    "from_function",
    "from_hf",
    "from_linen",
    "from_nnx",
    "load_data",
    "load_model",
    "trace",
    "train_ramps",
    "tune_thresholds",
]
