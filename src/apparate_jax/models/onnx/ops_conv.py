"""Convolutions and pools: batch and channels in front, then the spatial axes (NCHW)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.errors import ModelError
from apparate_jax.models.onnx.graph import Node
from apparate_jax.models.onnx.table import Array, Op, Table, unsupported
from apparate_jax.models.onnx.windows import Windows, taps, windows


def _names(rank: int, kernel: str) -> tuple[str, str, str]:
    letters = "DHW"[-rank:] if rank <= 3 else "".join(map(chr, range(97, 97 + rank)))
    return f"NC{letters}", f"{kernel}{letters}", f"NC{letters}"


def _per_channel(bias: Array, rank: int) -> Array:
    return bias.reshape(1, -1, *(1,) * rank)


def convolve(node: Node, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """A convolution of ``[batch, in, ...]`` with ``[out, in / group, ...]``."""
    rank = x.ndim - 2
    window = windows(node, x.shape[2:], weight.shape[2:])
    y = jax.lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(weight),
        window_strides=window.strides,
        padding=window.pads,
        rhs_dilation=window.dilations,
        dimension_numbers=_names(rank, "OI"),
        feature_group_count=node.attributes.get("group", 1),
    )
    return y if bias is None else y + _per_channel(bias, rank)


def _conv_transpose(node: Node, x: Array, weight: Array, bias: Array | None = None) -> Array:
    rank, group = x.ndim - 2, node.attributes.get("group", 1)
    strides = node.attributes.get("strides", (1,) * rank)
    dilations = node.attributes.get("dilations", (1,) * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    cut = _transposed_pads(node, x.shape[2:], spans, strides)
    extra = node.attributes.get("output_padding", (0,) * rank)
    # [in, out / group, ...] as the flipped kernel of a convolution over the spread-out input.
    kernel = jnp.flip(weight, range(2, weight.ndim))
    kernel = kernel.reshape(group, -1, *weight.shape[1:]).swapaxes(1, 2)
    kernel = kernel.reshape(-1, *kernel.shape[2:])
    y = jax.lax.conv_general_dilated(
        jnp.asarray(x),
        kernel,
        window_strides=(1,) * rank,
        padding=[
            (span - 1 - low, span - 1 - high + more)
            for span, (low, high), more in zip(spans, cut, extra, strict=True)
        ],
        lhs_dilation=strides,
        rhs_dilation=dilations,
        dimension_numbers=_names(rank, "OI"),
        feature_group_count=group,
    )
    return y if bias is None else y + _per_channel(bias, rank)


def _transposed_pads(
    node: Node, spatial: tuple[int, ...], spans: list[int], strides: tuple[int, ...]
) -> list[tuple[int, int]]:
    """What is cut from both ends of each axis of a transposed convolution's output."""
    rank = len(spatial)
    auto = node.attributes.get("auto_pad", "NOTSET")
    extra = node.attributes.get("output_padding", (0,) * rank)
    wanted = node.attributes.get("output_shape")
    if wanted is None and not auto.startswith("SAME"):
        pads = node.attributes.get("pads", (0,) * 2 * rank)
        return [(pads[i], pads[i + rank]) for i in range(rank)]
    cut = []
    for i, (n, span, stride) in enumerate(zip(spatial, spans, strides, strict=True)):
        out = wanted[-rank:][i] if wanted is not None else n * stride
        total = stride * (n - 1) + extra[i] + span - out
        half = max(total, 0) // 2
        low = half if auto == "SAME_UPPER" else max(total, 0) - half
        cut.append((low, total - low))
    return cut


def _pool(x: Array, window: Windows, start: Any, combine: Any) -> Array:
    y = jax.lax.reduce_window(
        x,
        start,
        combine,
        window_dimensions=(1, 1, *window.kernel),
        window_strides=(1, 1, *window.strides),
        padding=((0, 0), (0, 0), *window.pads),
        window_dilation=(1, 1, *window.dilations),
    )
    return y[(slice(None), slice(None), *(slice(n) for n in window.out))]


def _max_pool(node: Node, x: Array) -> Array:
    if len(list(filter(None, node.outputs))) > 1:
        raise unsupported(node, "gives indices")
    window = windows(node, x.shape[2:], node.attributes["kernel_shape"])
    low = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else np.iinfo(x.dtype).min
    return _pool(jnp.asarray(x), window, np.asarray(low, x.dtype), jax.lax.max)


def _average_pool(node: Node, x: Array) -> Array:
    window = windows(node, x.shape[2:], node.attributes["kernel_shape"])
    count_padding = bool(node.attributes.get("count_include_pad", 0))
    total = _pool(jnp.asarray(x), window, np.asarray(0, x.dtype), jax.lax.add)
    counts = [taps(window, n, axis, count_padding) for axis, n in enumerate(x.shape[2:])]
    grid = np.asarray(math.prod(np.ix_(*counts)), x.dtype)
    return total / (grid.flat[0] if (grid == grid.flat[0]).all() else grid)


def _global(name: str) -> Op:
    def run(node: Node, x: Array) -> Array:
        if x.ndim < 3:
            raise ModelError(f"{node} got {x.ndim} axes, expected batch, channels and space")
        return getattr(jnp, name)(x, axis=tuple(range(2, x.ndim)), keepdims=True)

    return Op(run)


CONV: Table = {
    "Conv": Op(convolve),
    "ConvTranspose": Op(_conv_transpose),
    "MaxPool": Op(_max_pool),
    "AveragePool": Op(_average_pool),
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("max"),
}
"""Convolutions and pools."""
