"""Head kinds: how a ramp turns the value at a site into logits.

A head pools the value to one vector per example and applies one dense layer (Apparate, section
3.1). The kinds are a table that users can extend: ``HEAD_KINDS["mine"] = HeadKind(...)``. A ramp
should pool as the model itself pools; on a sequence that is the first token or the masked mean.

Sharp edges: a mask applies to a sequence only if its length is the sequence's; images are expected
with channels last (``spatial_mean``), as Flax has them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from apparate_jax.core import Model, Site
from apparate_jax.errors import RampError

RampParams = Mapping[str, jax.Array]
"""``{"kernel": f32[width, classes], "bias": f32[classes]}``."""


class HeadKind(NamedTuple):
    """A way to pool a value.

    Attributes:
        pool: ``pool(value, mask) -> f32[batch, width]``; the mask ``[batch, time]`` may be None.
        width: Width of the pooled vector for a value of this shape.
        rank: Rank of the values that it takes, the batch axis included.
    """

    pool: Callable[[jax.Array, jax.Array | None], jax.Array]
    width: Callable[[tuple[int, ...]], int]
    rank: int


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


def _first_token(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    del mask
    return value[:, 0].astype(jnp.float32)


def _masked_mean(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return jnp.mean(value, axis=1, dtype=jnp.float32)
    weights = mask.astype(jnp.float32)
    weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    return jnp.einsum("bt,btd->bd", weights, value, preferred_element_type=jnp.float32)


def _spatial_mean(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    del mask
    return jnp.mean(value, axis=(1, 2), dtype=jnp.float32)


def _identity(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    del mask
    return value.astype(jnp.float32)


HEAD_KINDS: dict[str, HeadKind] = {
    "first_token": HeadKind(_first_token, lambda shape: shape[-1], 3),
    "masked_mean": HeadKind(_masked_mean, lambda shape: shape[-1], 3),
    "spatial_mean": HeadKind(_spatial_mean, lambda shape: shape[-1], 4),
    "identity": HeadKind(_identity, lambda shape: shape[-1], 2),
}


def choose_kind(site: Site, model: Model) -> str | None:
    """The head kind that fits a site, following the model's own pooling; None if none fits."""
    rank = len(site.shape)
    if rank == 3:
        return "first_token" if model.pooling == "first" else "masked_mean"
    return next((name for name, kind in HEAD_KINDS.items() if kind.rank == rank), None)


def pool(kind: str, value: jax.Array, mask: jax.Array | None) -> Float32[Array, "batch width"]:
    """Pool a value at a site.

    Args:
        kind: Key of :data:`HEAD_KINDS`.
        value: ``[batch, ...]``.
        mask: ``[batch, time]`` of ones and zeros, or None; ignored where its length does not fit.

    Returns:
        f32[batch, width].

    Raises:
        RampError: Unknown kind, or a value of another rank.
    """
    chosen = HEAD_KINDS.get(kind)
    if chosen is None:
        raise RampError(f"head kind {kind!r} is unknown, expected one of {sorted(HEAD_KINDS)}")
    if value.ndim != chosen.rank:
        raise RampError(
            f"head kind {kind!r} takes values of rank {chosen.rank}, got shape {value.shape}"
        )
    fits = mask is not None and mask.ndim == 2 and value.shape[:2] == mask.shape
    return chosen.pool(value, mask if fits else None)


def head_logits(
    params: RampParams, pooled: Float[Array, "batch width"]
) -> Float32[Array, "batch classes"]:
    """Logits of a ramp: one dense layer on the pooled value."""
    return pooled @ params["kernel"] + params["bias"]
