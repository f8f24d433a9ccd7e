"""Serve any Flax or JAX classifier with early answers.

``trace`` finds the cut vertices of a model's computation, ramps are trained there on the frozen
model's own answers, and the engine releases easy answers early while every input runs to the end.
"""

from apparate_jax.core import Answer, ExitPlan, InputSpec, Model, Profile, Site
from apparate_jax.errors import ApparateError
from apparate_jax.graph import Program, Stage, trace

__all__ = [
    "Answer",
    "ApparateError",
    "ExitPlan",
    "InputSpec",
    "Model",
    "Profile",
    "Program",
    "Site",
    "Stage",
    "trace",
]
