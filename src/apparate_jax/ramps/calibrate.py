"""Calibration: a temperature per ramp, so that errors mean the same at every ramp.

Thresholds are compared with errors (1 - top probability), and a ramp that is trained to convergence
is more certain than it is right. Dividing its logits by a temperature changes no prediction. It is
chosen to minimise the negative log-likelihood of the original model's label on validation samples,
a function of log(temperature) with one minimum, found for all ramps at once by a golden-section
search.

:func:`fold` then puts standardisation and temperature into kernels and biases: they cost nothing
when serving.

References:
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of the temperature: a ramp that is always right would ask for 0."""

_STEPS = 32
_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


def negative_log_likelihood(
    logits: Float[Array, "ramps samples classes"],
    labels: Int[Array, " samples"],
    temperatures: Float[Array, " ramps"],
) -> Float[Array, " ramps"]:
    """Mean negative log-likelihood of the labels, in nats.

    Args:
        logits: f32[ramps, samples, classes].
        labels: i32[samples].
        temperatures: f32[ramps].

    Returns:
        f32[ramps].
    """
    scores = jax.nn.log_softmax(logits / temperatures[:, None, None], axis=-1)
    picked = jnp.take_along_axis(scores, labels[None, :, None], axis=-1)[..., 0]
    return -picked.mean(axis=-1)


@jax.jit
def fit_temperatures(
    logits: Float[Array, "ramps samples classes"], labels: Int[Array, " samples"]
) -> Float[Array, " ramps"]:
    """The temperature of each ramp that fits the labels best, in 0.05..20.

    Args:
        logits: f32[ramps, samples, classes].
        labels: i32[samples], the original model's answers.

    Returns:
        f32[ramps].
    """

    def shrink(_: Any, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        left, right = high - _RATIO * (high - low), low + _RATIO * (high - low)
        at_left = negative_log_likelihood(logits, labels, jnp.exp(left))
        at_right = negative_log_likelihood(logits, labels, jnp.exp(right))
        smaller_left = at_left <= at_right
        return jnp.where(smaller_left, low, left), jnp.where(smaller_left, right, high)

    ramps = logits.shape[0]
    start = (jnp.full(ramps, math.log(LOWEST)), jnp.full(ramps, math.log(HIGHEST)))
    low, high = jax.lax.fori_loop(0, _STEPS, shrink, start)
    return jnp.exp((low + high) / 2)


def fold(
    params: Mapping[str, jax.Array],
    mean: Float[Array, "ramps width"],
    inverse_std: Float[Array, "ramps width"],
    temperatures: Float[Array, " ramps"],
) -> dict[str, jax.Array]:
    """Parameters for raw features: standardisation in the first layer, temperature in the last.

    With one layer, ``((x - m) s) K + b) / t  =  x (s K / t) + (b - (m s) K) / t``.

    Args:
        params: ``kernel`` f32[ramps, width, classes] and ``bias`` f32[ramps, classes] on
            standardised features; with a hidden layer also ``hidden_kernel`` and ``hidden_bias``.
        mean: f32[ramps, width].
        inverse_std: f32[ramps, width], 0 for features that do not vary.
        temperatures: f32[ramps].

    Returns:
        The same names and shapes.
    """
    first = "hidden_" if "hidden_kernel" in params else ""
    scaled = inverse_std[:, :, None] * params[f"{first}kernel"]
    shift = jnp.einsum("rw,rwc->rc", mean, scaled, precision=jax.lax.Precision.HIGHEST)
    folded = {
        **params,
        f"{first}kernel": scaled,
        f"{first}bias": params[f"{first}bias"] - shift,
    }
    heat = temperatures[:, None]
    folded["kernel"] = folded["kernel"] / heat[:, :, None]
    folded["bias"] = folded["bias"] / heat
    return folded
