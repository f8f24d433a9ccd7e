"""Layers: matrix products and normalisations."""

from typing import Any

import jax
import jax.numpy as jnp

from apparate_jax.errors import ModelError
from apparate_jax.models.onnx.graph import Node
from apparate_jax.models.onnx.table import Array, Op, Table, unsupported


def _gemm(node: Node, a: Array, b: Array, c: Array | None = None) -> Array:
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    a = a.T if node.attributes.get("transA", 0) else a
    b = b.T if node.attributes.get("transB", 0) else b
    y = jnp.matmul(a, b)
    y = y if alpha == 1.0 else (alpha * y).astype(y.dtype)
    if c is None:
        return y
    return y + (c if beta == 1.0 else (beta * c).astype(y.dtype))


def _einsum(node: Node, *values: Array) -> Array:
    return jnp.einsum(node.attributes["equation"].replace(" ", ""), *values)


def _channels(value: Array, x: Array) -> Array:
    return value.reshape(-1, *(1,) * (x.ndim - 2))


def _batch_norm(
    node: Node, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> Array:
    if node.attributes.get("training_mode", 0):
        raise ModelError(f"{node} is in training mode: export the model for inference")
    if not node.attributes.get("spatial", 1):
        raise unsupported(node, "normalises each position apart (spatial=0)")
    epsilon = node.attributes.get("epsilon", 1e-5)
    # Of parameters only: computed once where the model is cut into stages.
    factor = scale / jnp.sqrt(variance + epsilon)
    shift = bias - mean * factor
    return (x * _channels(factor, x) + _channels(shift, x)).astype(x.dtype)


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """Values of mean 0 and variance 1, the mean, and the inverse of the deviation, in float32."""
    exact = jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(exact, axis=axes, keepdims=True)
    centred = exact - mean
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=axes, keepdims=True) + epsilon)
    return centred * inverse, mean, inverse


def _layer_norm(node: Node, x: Array, scale: Array, bias: Array | None = None) -> Any:
    axis = node.attributes.get("axis", -1) % x.ndim
    axes = tuple(range(axis, x.ndim))
    y, mean, inverse = _standardised(x, axes, node.attributes.get("epsilon", 1e-5))
    y = y.astype(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


def _rms_norm(node: Node, x: Array, scale: Array) -> Array:
    axes = tuple(range(node.attributes.get("axis", -1) % x.ndim, x.ndim))
    exact = jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))
    power = jnp.mean(jnp.square(exact), axis=axes, keepdims=True)
    y = exact * jax.lax.rsqrt(power + node.attributes.get("epsilon", 1e-5))
    return y.astype(x.dtype) * scale


def _instance_norm(node: Node, x: Array, scale: Array, bias: Array) -> Array:
    y, _, _ = _standardised(x, tuple(range(2, x.ndim)), node.attributes.get("epsilon", 1e-5))
    return y.astype(x.dtype) * _channels(scale, x) + _channels(bias, x)


def _group_norm(node: Node, x: Array, scale: Array, bias: Array) -> Array:
    groups = node.attributes["num_groups"]
    grouped = x.reshape(x.shape[0], groups, -1)
    y, _, _ = _standardised(grouped, (2,), node.attributes.get("epsilon", 1e-5))
    if node.opset < 21:  # scale and bias per group, per channel since then
        scale, bias = (jnp.repeat(v, x.shape[1] // groups) for v in (scale, bias))
    return y.reshape(x.shape).astype(x.dtype) * _channels(scale, x) + _channels(bias, x)


def _lrn(node: Node, x: Array) -> Array:
    size = node.attributes["size"]
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    power = jax.lax.reduce_window(
        jnp.square(x),
        jnp.zeros((), x.dtype),
        jax.lax.add,
        window_dimensions=(1, size, *(1,) * (x.ndim - 2)),
        window_strides=(1,) * x.ndim,
        padding=((0, 0), ((size - 1) // 2, size // 2), *((0, 0),) * (x.ndim - 2)),
    )
    return x / (node.attributes.get("bias", 1.0) + alpha / size * power) ** beta


def _lp_norm(node: Node, x: Array) -> Array:
    axis, order = node.attributes.get("axis", -1), node.attributes.get("p", 2)
    norm = jnp.linalg.norm(x, ord=order, axis=axis, keepdims=True)
    return jnp.where(norm == 0, jnp.zeros((), x.dtype), x / jnp.where(norm == 0, 1, norm))


NN: Table = {
    "MatMul": Op(lambda node, a, b: jnp.matmul(a, b)),
    "Gemm": Op(_gemm),
    "Einsum": Op(_einsum),
    "BatchNormalization": Op(_batch_norm),
    "LayerNormalization": Op(_layer_norm),
    "RMSNormalization": Op(_rms_norm),
    "InstanceNormalization": Op(_instance_norm),
    "GroupNormalization": Op(_group_norm),
    "LRN": Op(_lrn),
    "LpNormalization": Op(_lp_norm),
}
"""Layers: matrix products and normalisations."""
