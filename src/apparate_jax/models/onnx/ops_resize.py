"""Resize and Upsample: per axis a few taps with fixed weights, known from the sizes alone."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from apparate_jax.models.onnx.graph import Node
from apparate_jax.models.onnx.table import Array, Op, Table, ints, unsupported

Floats = NDArray[np.float64]

_ROUND: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _coordinates(mode: str, size: int, out: int, scale: float) -> Floats:
    """Where each output position lies in the input, f64[out]."""
    at = np.arange(out, dtype=np.float64)
    if mode == "align_corners":
        return at * (size - 1) / (out - 1) if out > 1 else at * 0
    if mode == "asymmetric":
        return at / scale
    if mode == "pytorch_half_pixel" and out == 1:
        return at * 0
    if mode == "half_pixel_symmetric":
        adjusted = out / (scale * size)
        return size / 2 * (1 - adjusted) + (at + 0.5) / scale - 0.5
    return (at + 0.5) / scale - 0.5


def _taps(node: Node, method: str, at: Floats, size: int) -> tuple[NDArray[np.int64], Floats]:
    """Input positions and weights of each output position, both ``[out, taps]``."""
    if method == "nearest":
        old = node.op == "Upsample" or node.opset < 11
        default = "floor" if old else "round_prefer_floor"
        places = _ROUND[node.attributes.get("nearest_mode", default)](at)[:, None]
        weights = np.ones_like(places)
    else:
        reach = 1 if method == "linear" else 2
        first = np.floor(at) - reach + 1
        places = first[:, None] + np.arange(2 * reach)
        distance = np.abs(at[:, None] - places)
        cubic = node.attributes.get("cubic_coeff_a", -0.75)
        weights = 1 - distance if method == "linear" else _cubic(distance, cubic)
        if node.attributes.get("exclude_outside", 0):
            weights = np.where((places >= 0) & (places < size), weights, 0)
            weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(places, 0, size - 1).astype(np.int64), weights


def _cubic(d: Floats, a: float) -> Floats:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _resize_axis(node: Node, x: Array, axis: int, out: int, scale: float) -> Array:
    mode = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if node.op == "Upsample" or node.opset < 11:
        mode = "asymmetric"
    at = _coordinates(mode, x.shape[axis], out, scale)
    places, weights = _taps(node, node.attributes.get("mode", "nearest"), at, x.shape[axis])
    if places.shape[1] == 1:
        return jnp.take(x, places[:, 0], axis=axis, mode="clip")
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    parts = [
        jnp.take(x, places[:, i], axis=axis, mode="clip")
        * np.asarray(weights[:, i].reshape(shape), x.dtype)
        for i in range(places.shape[1])
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _check(node: Node) -> None:
    if node.attributes.get("antialias", 0):
        raise unsupported(node, "smooths (antialias)")
    if node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise unsupported(node, "crops (tf_crop_and_resize)")
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise unsupported(node, "keeps the aspect ratio")


def _resize(
    node: Node,
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
) -> Array:
    _check(node)
    if node.op == "Resize" and node.opset < 11:
        scales = roi  # the only input besides x
    along = node.attributes.get("axes", tuple(range(x.ndim)))
    factors: list[float]
    if sizes is not None and sizes.size:
        outs = list(ints(sizes))
        factors = [n / x.shape[axis] for n, axis in zip(outs, along, strict=True)]
    else:
        given = node.attributes.get("scales") if scales is None else scales
        factors = [float(f) for f in np.asarray(given).reshape(-1)]
        outs = [math.floor(x.shape[axis] * f) for f, axis in zip(factors, along, strict=True)]
    for axis, out, factor in zip(along, outs, factors, strict=True):
        if factor != 1.0 or out != x.shape[axis]:
            x = _resize_axis(node, x, axis % x.ndim, out, factor)
    return x


RESIZE: Table = {
    "Resize": Op(_resize, static=(1, 2, 3)),
    "Upsample": Op(lambda node, x, scales=None: _resize(node, x, None, scales), static=(1,)),
}
"""Resize and Upsample."""
