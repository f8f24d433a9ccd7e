"""Head kinds: how a ramp turns the value at a site into logits.

A head pools the value to one vector per example and applies a dense layer (Apparate, section 3.1),
or, by its *style*, a small network with one hidden layer. The kinds of pooling are a table that
users can extend: ``HEAD_KINDS["mine"] = HeadKind(...)``, to be named in
:class:`~apparate_jax.ramps.config.TrainConfig`; so are the styles, ``HEAD_STYLES``. A ramp should
pool as the model itself pools; on a sequence that is the first token, the last valid one, or the
masked mean.

Sums are in float32 whatever the model's dtype. The masked mean is one contraction with weights that
depend on the mask only, which on a CPU is several times quicker at batch 1 than a masked sum.

Sharp edges: a mask applies to a sequence only if its length is the sequence's, otherwise all
positions count; values over space are pooled with channels last, as Flax has them, unless the model
says that they come first; of an example without a valid position the masked mean
is 0 and the last token is the first one.
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
"""``{"kernel": f32[width, classes], "bias": f32[classes]}``; with a hidden layer also
``hidden_kernel`` f32[width, units] and ``hidden_bias`` f32[units], and the kernel is of its width.
"""

PARAM_NAMES = ("hidden_kernel", "hidden_bias", "kernel", "bias")
"""Every parameter that a ramp may have, in the order of computation."""

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


class HeadStyle(NamedTuple):
    """What stands between the pooled vector and the logits.

    Attributes:
        units: Units of the hidden layer for a pooled vector of this width, 0 for none.
        activation: Of the hidden layer.
    """

    units: Callable[[int], int]
    activation: Callable[[jax.Array], jax.Array]


HEAD_STYLES: dict[str, HeadStyle] = {
    "linear": HeadStyle(lambda width: 0, lambda x: x),
    "hidden": HeadStyle(lambda width: 32, jax.nn.relu),
    # DeeBERT's ramp is BERT's whole pooler: a dense layer of the model's width and tanh.
    "pooler": HeadStyle(lambda width: width, jnp.tanh),
}


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
        style: A key of :data:`HEAD_STYLES`.
    """

    site: int
    name: str
    kind: str
    params: RampParams
    agreement: float
    temperature: float
    style: str = "linear"

    @property
    def num_bytes(self) -> int:
        """Size of its parameters."""
        return sum(leaf.nbytes for leaf in self.params.values())


def _first_token(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    del mask
    return value[:, 0].astype(jnp.float32)


def _last_token(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return value[:, -1].astype(jnp.float32)
    last = jnp.where(mask > 0, jnp.arange(mask.shape[1]), 0).max(axis=1)
    chosen = jnp.take_along_axis(value, last[:, None, None], axis=1)
    return chosen[:, 0].astype(jnp.float32)


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
    "last": HeadKind(_last_token, lambda shape: shape[-1], lambda shape: len(shape) == 3),
    "masked_mean": HeadKind(_masked_mean, lambda shape: shape[-1], lambda shape: len(shape) == 3),
    "spatial_mean": HeadKind(_spatial_mean, lambda shape: shape[-1], lambda shape: len(shape) >= 4),
    "spatial_mean_first": HeadKind(
        _spatial_mean_first, lambda shape: shape[1], lambda shape: len(shape) >= 4
    ),
    "identity": HeadKind(_identity, lambda shape: shape[-1], lambda shape: len(shape) == 2),
}


_SEQUENCE_KINDS = {"first": "first_token", "last": "last", "mean": "masked_mean"}


def choose_kind(site: Site, model: Model) -> str | None:
    """The head kind for a site, following the model's own pooling.

    Returns:
        A key of :data:`HEAD_KINDS`, or None where no kind fits: there is no ramp there.
    """
    if len(site.shape) == 3:
        return _SEQUENCE_KINDS[model.pooling]
    if len(site.shape) > 3 and model.channels == "first" and not _square_in_front(site.shape):
        return "spatial_mean_first"
    return next((name for name, kind in HEAD_KINDS.items() if kind.fits(site.shape)), None)


def _square_in_front(shape: tuple[int, ...]) -> bool:
    """Whether space is right after the batch: exporters leave some values transposed."""
    return len(set(shape[1:-1])) == 1 != len(set(shape[2:]))


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


def head_style(style: str) -> HeadStyle:
    """The entry of the table.

    Raises:
        RampError: Unknown style.
    """
    if style not in HEAD_STYLES:
        raise RampError(f"head style {style!r} is unknown, expected one of {sorted(HEAD_STYLES)}")
    return HEAD_STYLES[style]


def head_logits(
    params: RampParams,
    pooled: Float[Array, "batch width"] | Float[np.ndarray, "batch width"],
    style: str = "linear",
) -> Float32[Array, "batch classes"]:
    """Logits of a ramp from the pooled value.

    Args:
        params: See :data:`RampParams`.
        pooled: f32[batch, width].
        style: Key of :data:`HEAD_STYLES`, which says how a hidden layer is activated.

    Returns:
        f32[batch, classes].

    Raises:
        RampError: Unknown style.
    """
    activation = head_style(style).activation
    if "hidden_kernel" in params:
        hidden = jnp.matmul(pooled, params["hidden_kernel"], precision=_EXACT)
        pooled = activation(hidden + params["hidden_bias"])
    return jnp.matmul(pooled, params["kernel"], precision=_EXACT) + params["bias"]
