"""Head kinds: how a ramp turns the value at a site into logits.

A head pools the value to one vector per example and applies one dense layer (Apparate, section
3.1). The kinds are a table that users can extend: ``HEAD_KINDS["mine"] = HeadKind(...)``, to be
named in :class:`~apparate_jax.ramps.config.TrainConfig`. A ramp should pool as the model itself
pools; on a sequence that is the first token or the masked mean.

Sums are in float32 whatever the model's dtype. The masked mean is one contraction with weights that
depend on the mask only, which on a CPU is several times quicker at batch 1 than a masked sum.

Sharp edges: a mask applies to a sequence only if its length is the sequence's, otherwise all
positions count; images are expected with channels last, as Flax has them (name
``spatial_mean_first`` for channels first); the masked mean of an example without a valid position
is 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped

from apparate_jax.core import Model, Site
from apparate_jax.errors import RampError

RampParams = Mapping[str, jax.Array]
"""``{"kernel": f32[width, classes], "bias": f32[classes]}``."""

# Folding the standardisation into the kernel makes large terms cancel: no TF32 or bfloat16 there.
_EXACT = jax.lax.Precision.HIGHEST


class HeadKind(NamedTuple):
    """A way to pool a value.

    Attributes:
        pool: ``pool(value, mask) -> f32[batch, width]``; the mask ``[batch, time]`` may be None.
        width: Width of the pooled vector for a value of this shape, the batch axis included.
        fits: Whether it takes values of this shape.
    """

    pool: Callable[[jax.Array, jax.Array | None], jax.Array]
    width: Callable[[tuple[int, ...]], int]
    fits: Callable[[tuple[int, ...]], bool]


@dataclass(frozen=True, slots=True)
class Ramp:
    """A trained ramp.

    Attributes:
        site: Index of its site.
        name: Name of its site.
        kind: Its head kind, a key of :data:`HEAD_KINDS`.
        params: Kernel and bias; standardisation and temperature are folded in.
        agreement: Share of validation samples on which it agrees with the original model.
        temperature: What its logits were divided by in calibration.
    """

    site: int
    name: str
    kind: str
    params: RampParams
    agreement: float
    temperature: float

    @property
    def num_bytes(self) -> int:
        """Size of its parameters."""
        return sum(leaf.nbytes for leaf in self.params.values())


def _first_token(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    del mask
    return value[:, 0].astype(jnp.float32)


def _masked_mean(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return jnp.mean(value, axis=1, dtype=jnp.float32)
    weights = mask.astype(jnp.float32)
    weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    return jnp.einsum("bt,btd->bd", weights, value.astype(jnp.float32), precision=_EXACT)


def _spatial_mean(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    del mask
    return jnp.mean(value, axis=tuple(range(1, value.ndim - 1)), dtype=jnp.float32)


def _spatial_mean_first(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    del mask
    return jnp.mean(value, axis=tuple(range(2, value.ndim)), dtype=jnp.float32)


def _identity(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    del mask
    return value.astype(jnp.float32)


HEAD_KINDS: dict[str, HeadKind] = {
    "first_token": HeadKind(_first_token, lambda shape: shape[-1], lambda shape: len(shape) == 3),
    "masked_mean": HeadKind(_masked_mean, lambda shape: shape[-1], lambda shape: len(shape) == 3),
    "spatial_mean": HeadKind(_spatial_mean, lambda shape: shape[-1], lambda shape: len(shape) >= 4),
    "spatial_mean_first": HeadKind(
        _spatial_mean_first, lambda shape: shape[1], lambda shape: len(shape) >= 4
    ),
    "identity": HeadKind(_identity, lambda shape: shape[-1], lambda shape: len(shape) == 2),
}


def choose_kind(site: Site, model: Model) -> str | None:
    """The head kind for a site, following the model's own pooling.

    Returns:
        A key of :data:`HEAD_KINDS`, or None where no kind fits: there is no ramp there.
    """
    if len(site.shape) == 3:
        return "first_token" if model.pooling == "first" else "masked_mean"
    return next((name for name, kind in HEAD_KINDS.items() if kind.fits(site.shape)), None)


def mask_position(model: Model) -> int | None:
    """Position of the mask among the model's inputs, None if it has none."""
    if model.mask is None:
        return None
    names = [spec.name for spec in model.inputs]
    if model.mask not in names:
        raise RampError(
            f"the mask of {model.name!r} is {model.mask!r}, but its inputs are {names}: describe "
            "the inputs where the model is made (inputs=[InputSpec(...), ...])"
        )
    return names.index(model.mask)


def head_kind(kind: str, shape: tuple[int, ...]) -> HeadKind:
    """The entry of the table for values of this shape, the batch axis included.

    Raises:
        RampError: Unknown kind, or one that does not take such values.
    """
    chosen = HEAD_KINDS.get(kind)
    if chosen is None:
        raise RampError(f"head kind {kind!r} is unknown, expected one of {sorted(HEAD_KINDS)}")
    if not chosen.fits(shape):
        fitting = sorted(name for name, other in HEAD_KINDS.items() if other.fits(shape))
        raise RampError(
            f"head kind {kind!r} does not take values of shape {list(shape)}; those that do: "
            f"{fitting or 'none, leave this site without a ramp'}"
        )
    return chosen


def head_bytes(kind: str, shape: tuple[int, ...], num_classes: int) -> int:
    """Size of a ramp's parameters in float32, for a value of this shape."""
    return 4 * num_classes * (head_kind(kind, shape).width(shape) + 1)


def pool(
    kind: str, value: Shaped[Array, "batch ..."], mask: Shaped[Array, "batch time"] | None
) -> Float32[Array, "batch width"]:
    """Pool a value at a site.

    Args:
        kind: Key of :data:`HEAD_KINDS`.
        value: ``[batch, ...]``.
        mask: ``[batch, time]`` of ones and zeros, or None; ignored where its length does not fit.

    Returns:
        f32[batch, width].

    Raises:
        RampError: Unknown kind, or a value of a shape that it does not take.
    """
    chosen = head_kind(kind, value.shape)
    fits = mask is not None and value.shape[:2] == mask.shape
    return chosen.pool(value, mask if fits else None)


def head_logits(
    params: RampParams,
    pooled: Float[Array, "batch width"] | Float[np.ndarray, "batch width"],
) -> Float32[Array, "batch classes"]:
    """Logits of a ramp: one dense layer on the pooled value.

    Args:
        params: Kernel f32[width, classes] and bias f32[classes].
        pooled: f32[batch, width].

    Returns:
        f32[batch, classes].
    """
    return jnp.matmul(pooled, params["kernel"], precision=_EXACT) + params["bias"]
