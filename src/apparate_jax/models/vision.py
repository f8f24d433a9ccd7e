"""What the image families share: layers in PyTorch's conventions, and how pictures become inputs.

Images are ``f32[batch, height, width, 3]``, channels last. Batch norms compute in float32 whatever
the model's dtype: their scale and shift depend on parameters only and are folded once, at load.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from apparate_jax.core import ImagePreprocess, InputSpec, Model
from apparate_jax.errors import ModelError
from apparate_jax.models.build import build_model

Dtype = Literal["float32", "bfloat16"]
Padding = str | Sequence[tuple[int, int]]

Arrays = TypeVar("Arrays", bound=tuple[Any, ...])

WHOLE_BELOW = 128
"""Inputs smaller than this are whole pictures, not the middle of larger ones."""


def check_config(image_size: int, num_labels: int, dtype: str) -> None:
    """Check what every image family's configuration has.

    Raises:
        ModelError: Says which value does not fit.
    """
    if image_size < 1 or num_labels < 2:
        raise ModelError(
            f"image_size is {image_size} and num_labels {num_labels}, expected at least 1 and 2"
        )
    if dtype not in ("float32", "bfloat16"):
        raise ModelError(f"dtype is {dtype!r}, expected 'float32' or 'bfloat16'")


def image_input(size: int) -> InputSpec:
    """The input of an image model, normalised: ``image f32[size, size, 3]``."""
    return InputSpec("image", (size, size, 3), "float32", -2.0, 2.0)


def imagenet(size: int) -> ImagePreprocess:
    """ImageNet's usual statistics and proportions: resize to 8/7, cut out the middle."""
    return ImagePreprocess(size, size, size * 8 // 7 if size >= WHOLE_BELOW else None)


def conv(
    inputs: int,
    outputs: int,
    size: int,
    rngs: nnx.Rngs,
    dtype: Dtype,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    padding: Padding | None = None,
) -> nnx.Conv:
    """A convolution, padded by half of its size on every side unless told otherwise."""
    edge = (size // 2, size // 2)
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=[edge, edge] if padding is None else padding,
        feature_group_count=groups,
        use_bias=bias,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(dtype),
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_in", "normal"),
        rngs=rngs,
    )


def linear(
    inputs: int, outputs: int, rngs: nnx.Rngs, dtype: Dtype, *, bias: bool = True
) -> nnx.Linear:
    """A dense layer with small random weights."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=bias,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(dtype),
        kernel_init=nnx.initializers.normal(0.02),
        rngs=rngs,
    )


def batch_norm(
    features: int, rngs: nnx.Rngs, dtype: Dtype, *, epsilon: float = 1e-5
) -> nnx.BatchNorm:
    """A batch norm that computes in float32 and returns ``dtype``."""
    return nnx.BatchNorm(
        features,
        epsilon=epsilon,
        momentum=0.9,
        dtype=jnp.dtype(dtype),
        promote_dtype=_as_they_are,
        rngs=rngs,
    )


def _as_they_are(arrays: Arrays, /, *, dtype: Any = None, inexact: bool = True) -> Arrays:
    """A bfloat16 input and float32 statistics stay so, and meet in float32."""
    del dtype, inexact
    return arrays


def compute_in(image: jax.Array, dtype: Dtype) -> jax.Array:
    """An image in the model's dtype."""
    return image.astype(jnp.dtype(dtype))


def space_mean(x: jax.Array) -> jax.Array:
    """Mean over space of f[batch, height, width, channels], summed in float32."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32).astype(x.dtype)


def build(
    module: Callable[[nnx.Rngs], nnx.Module],
    seed: int | None,
    name: str,
    image: ImagePreprocess,
    pooling: Literal["mean", "first"] = "mean",
) -> Model:
    """A model of an image family.

    Args:
        module: Makes the network.
        seed: Of random weights; without one the parameters are shapes only.
        name: Of the family.
        image: How pictures become its input.
        pooling: How it pools a sequence of patches.
    """
    options = {"name": name, "inputs": [image_input(image.height)], "pooling": pooling}
    return replace(build_model(module, seed, **options), image=image)
