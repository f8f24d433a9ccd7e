"""Operators of quantised models: dynamic quantisation and products of 8-bit integers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from apparate_jax.models.onnx.graph import Node
from apparate_jax.models.onnx.ops_conv import convolve
from apparate_jax.models.onnx.table import Array, Op, Table, dtype_of, unsupported


def _along(node: Node, value: Array, x: Array) -> Array:
    """A scale or zero point, one for all or one per slice of an axis, for broadcasting."""
    if value.size == 1:
        return value.reshape(())
    if node.attributes.get("block_size", 0) or value.ndim != 1:
        raise unsupported(node, "has scales per block")
    axis = node.attributes.get("axis", 1) % x.ndim
    return value.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def _rounded(x: Array, zero: Array | int, dtype: np.dtype[Any]) -> Array:
    if dtype.name not in ("int8", "uint8", "int16", "uint16"):
        raise ValueError(f"quantised values of {dtype} are not supported, expected int8 or uint8")
    info = np.iinfo(dtype)
    shifted = jnp.round(x) + jnp.asarray(zero, jnp.float32)
    return jnp.clip(shifted, info.min, info.max).astype(dtype)


def _quantize(node: Node, x: Array, scale: Array, zero: Array | None = None) -> Array:
    code = node.attributes.get("output_dtype", 0)
    made = np.dtype(np.uint8) if not code else dtype_of(node, code)
    dtype = made if zero is None else np.dtype(zero.dtype)
    shift = 0 if zero is None else _along(node, zero, x)
    return _rounded(x / _along(node, scale, x), shift, dtype)


def _dequantize(node: Node, x: Array, scale: Array, zero: Array | None = None) -> Array:
    shifted = jnp.asarray(x, jnp.float32)
    if zero is not None:
        shifted = shifted - jnp.asarray(_along(node, zero, x), jnp.float32)
    return (shifted * _along(node, scale, x)).astype(scale.dtype)


def _dynamic_quantize(node: Node, x: Array) -> tuple[Array, Array, Array]:
    low, high = jnp.minimum(jnp.min(x), 0), jnp.maximum(jnp.max(x), 0)
    scale = jnp.where(high == low, 1, (high - low) / 255)
    zero = _rounded(-low / scale, 0, np.dtype(np.uint8))
    return _rounded(x / scale, zero, np.dtype(np.uint8)), scale, zero


def _less_zero(x: Array, zero: Array | None, axis: int) -> Array:
    """Integers without their zero point, i32."""
    wide = jnp.asarray(x, jnp.int32)
    if zero is None:
        return wide
    shift = jnp.asarray(zero, jnp.int32)
    if shift.ndim == 1 and shift.size > 1:
        shift = shift.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
    return wide - (shift if shift.size > 1 else shift.reshape(()))


def _matmul_integer(
    node: Node, a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None
) -> Array:
    return jnp.matmul(_less_zero(a, a_zero, -2), _less_zero(b, b_zero, -1))


def _conv_integer(
    node: Node, x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None
) -> Array:
    return convolve(node, _less_zero(x, x_zero, 1), _less_zero(w, w_zero, 0))


QUANT: Table = {
    "QuantizeLinear": Op(_quantize),
    "DequantizeLinear": Op(_dequantize),
    "DynamicQuantizeLinear": Op(_dynamic_quantize),
    "MatMulInteger": Op(_matmul_integer),
    "ConvInteger": Op(_conv_integer),
}
"""Operators of quantised models."""
