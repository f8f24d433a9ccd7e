"""Built-in networks as models: shapes first, weights from a file or at random afterwards."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from apparate_jax.core import Model
from apparate_jax.models.wrap import from_nnx


def build_model(
    module: Callable[[nnx.Rngs], nnx.Module], seed: int | None, **options: Any
) -> Model:
    """A model of a network.

    Args:
        module: Makes the network.
        seed: Of random weights; without one the parameters are shapes only, to be filled in.
        **options: As for :func:`apparate_jax.models.wrap.from_nnx`.
    """
    shapes = nnx.eval_shape(lambda: module(cast(nnx.Rngs, _SameKey(jax.random.key(0)))))
    model = from_nnx(shapes, **options)
    return model if seed is None else replace(model, params=random_params(model.params, seed))


class _SameKey(NamedTuple):
    """Rngs for shapes only: to count keys while tracing takes longer than all else, 2 s of 3."""

    key: jax.Array

    def params(self) -> jax.Array:
        return self.key


def random_params(shapes: Mapping[str, Any], seed: int) -> dict[str, jax.Array]:
    """Random weights for parameters of these shapes and names.

    Kernels keep the variance of their inputs (He et al., 2015), norms start as the identity. Made
    by NumPy: initialising layer by layer compiles a program per shape, 10 s for a ResNet-18.
    """
    rng = np.random.default_rng(seed)
    return {path: _random(path, like, rng) for path, like in shapes.items()}


def _random(path: str, like: Any, rng: np.random.Generator) -> jax.Array:
    kind = path.rpartition("/")[2]
    if kind in ("bias", "mean"):
        return jnp.zeros(like.shape, like.dtype)
    if kind in ("scale", "var"):
        return jnp.ones(like.shape, like.dtype)
    fan_in = math.prod(like.shape[:-1])
    std = math.sqrt((2 if len(like.shape) == 4 else 1) / fan_in) if kind == "kernel" else 0.02
    values = rng.standard_normal(like.shape, np.float32) * np.float32(std)
    return jnp.asarray(values, like.dtype)
