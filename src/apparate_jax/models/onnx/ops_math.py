"""Element-wise operators: arithmetic, functions, activations, comparisons and logic."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.models.onnx.graph import Node
from apparate_jax.models.onnx.table import Array, Op, Table, is_static, xp


def _unary(name: str) -> Op:
    return Op(lambda node, x: getattr(xp(x), name)(x))


def _binary(name: str) -> Op:
    return Op(lambda node, a, b: getattr(xp(a, b), name)(a, b))


def _variadic(name: str) -> Op:
    def run(node: Node, *values: Array) -> Array:
        return functools.reduce(getattr(xp(*values), name), values)

    return Op(run)


def _jax(fn: Callable[..., Any]) -> Op:
    return Op(lambda node, x: fn(x))


def _is_integer(x: Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def _div(node: Node, a: Array, b: Array) -> Array:
    if not _is_integer(a):
        return xp(a, b).true_divide(a, b)
    if not is_static(a) or not is_static(b):
        return jax.lax.div(*jnp.broadcast_arrays(a, jnp.asarray(b, jnp.asarray(a).dtype)))
    quotient = np.abs(a) // np.maximum(np.abs(b), 1)
    return (quotient * np.sign(a) * np.sign(b)).astype(a.dtype)


def _mod(node: Node, a: Array, b: Array) -> Array:
    return getattr(xp(a, b), "fmod" if node.attributes.get("fmod", 0) else "mod")(a, b)


def _pow(node: Node, base: Array, exponent: Array) -> Array:
    if is_static(exponent) and exponent.size == 1 and not is_static(base):
        whole = float(exponent.reshape(()))
        if whole == int(whole) and abs(whole) <= 16 and base.ndim >= exponent.ndim:
            return base ** int(whole)
    return xp(base, exponent).power(base, exponent).astype(base.dtype)


def _mean(node: Node, *values: Array) -> Array:
    return functools.reduce(xp(*values).add, values) / np.asarray(len(values), values[0].dtype)


def _clip(node: Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    low = node.attributes.get("min", low)
    high = node.attributes.get("max", high)
    np_like = xp(x, *(v for v in (low, high) if not isinstance(v, float)))
    if low is not None:
        x = np_like.maximum(x, np_like.asarray(low, x.dtype))
    return x if high is None else np_like.minimum(x, np_like.asarray(high, x.dtype))


def _bit_shift(node: Node, a: Array, b: Array) -> Array:
    name = "left_shift" if node.attributes["direction"] == "LEFT" else "right_shift"
    return getattr(xp(a, b), name)(a, b)


def _is_inf(node: Node, x: Array) -> Array:
    x = jnp.asarray(x)
    found = jnp.zeros(x.shape, bool)
    if node.attributes.get("detect_positive", 1):
        found |= jnp.isposinf(x)
    return found | jnp.isneginf(x) if node.attributes.get("detect_negative", 1) else found


def _leaky_relu(node: Node, x: Array) -> Array:
    return jnp.where(x < 0, x * node.attributes.get("alpha", 0.01), x)


def _prelu(node: Node, x: Array, slope: Array) -> Array:
    return jnp.where(x < 0, x * slope, x)


def _elu(node: Node, x: Array) -> Array:
    return jax.nn.elu(x, node.attributes.get("alpha", 1.0))


def _selu(node: Node, x: Array) -> Array:
    alpha = node.attributes.get("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get("gamma", 1.05070102214813232421875)
    return gamma * jax.nn.elu(x, alpha)


def _celu(node: Node, x: Array) -> Array:
    return jax.nn.celu(x, node.attributes.get("alpha", 1.0))


def _thresholded_relu(node: Node, x: Array) -> Array:
    return jnp.where(x > node.attributes.get("alpha", 1.0), x, jnp.zeros((), x.dtype))


def _hard_sigmoid(node: Node, x: Array) -> Array:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return jnp.clip(alpha * x + beta, 0, 1)


def _hard_swish(node: Node, x: Array) -> Array:
    return x * jnp.clip(x / 6 + 0.5, 0, 1)


def _shrink(node: Node, x: Array) -> Array:
    bias, limit = node.attributes.get("bias", 0.0), node.attributes.get("lambd", 0.5)
    shrunk = jnp.where(x < -limit, x + bias, jnp.where(x > limit, x - bias, 0))
    return shrunk.astype(x.dtype)


def _gelu(node: Node, x: Array) -> Array:
    approximate = node.attributes.get("approximate", "none") == "tanh"
    return jax.nn.gelu(x, approximate=approximate)


def _swish(node: Node, x: Array) -> Array:
    return x * jax.nn.sigmoid(node.attributes.get("alpha", 1.0) * x)


def _softmax(fn: Callable[..., Array]) -> Op:
    def run(node: Node, x: Array) -> Array:
        if node.opset >= 13:
            return fn(x, axis=node.attributes.get("axis", -1))
        # Older versions flatten what follows the axis and normalise over all of it.
        axis = node.attributes.get("axis", 1) % max(x.ndim, 1)
        return fn(x, axis=tuple(range(axis, x.ndim)))

    return Op(run)


_NUMPY_NAMES = {
    "Abs": "abs",
    "Acos": "arccos",
    "Acosh": "arccosh",
    "Asin": "arcsin",
    "Asinh": "arcsinh",
    "Atan": "arctan",
    "Atanh": "arctanh",
    "BitwiseNot": "invert",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Exp": "exp",
    "Floor": "floor",
    "IsNaN": "isnan",
    "Log": "log",
    "Neg": "negative",
    "Not": "logical_not",
    "Reciprocal": "reciprocal",
    "Round": "round",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}
_NUMPY_PAIRS = {
    "Add": "add",
    "And": "logical_and",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Mul": "multiply",
    "Or": "logical_or",
    "Sub": "subtract",
    "Xor": "logical_xor",
}

MATH: Table = {
    **{op: _unary(name) for op, name in _NUMPY_NAMES.items()},
    **{op: _binary(name) for op, name in _NUMPY_PAIRS.items()},
    "Max": _variadic("maximum"),
    "Min": _variadic("minimum"),
    "Sum": _variadic("add"),
    "Mean": Op(_mean),
    "Div": Op(_div),
    "Mod": Op(_mod),
    "Pow": Op(_pow),
    "Clip": Op(_clip),
    "BitShift": Op(_bit_shift),
    "IsInf": Op(_is_inf),
    "Where": Op(lambda node, c, a, b: xp(c, a, b).where(c, a, b)),
    "Erf": _jax(jax.scipy.special.erf),
    "Relu": _jax(lambda x: jnp.maximum(x, jnp.zeros((), x.dtype))),
    "Sigmoid": _jax(jax.nn.sigmoid),
    "Softplus": _jax(jax.nn.softplus),
    "Softsign": _jax(jax.nn.soft_sign),
    "Mish": _jax(jax.nn.mish),
    "LeakyRelu": Op(_leaky_relu),
    "PRelu": Op(_prelu),
    "Elu": Op(_elu),
    "Selu": Op(_selu),
    "Celu": Op(_celu),
    "ThresholdedRelu": Op(_thresholded_relu),
    "HardSigmoid": Op(_hard_sigmoid),
    "HardSwish": Op(_hard_swish),
    "Shrink": Op(_shrink),
    "Gelu": Op(_gelu),
    "Swish": Op(_swish),
    "Softmax": _softmax(jax.nn.softmax),
    "LogSoftmax": _softmax(jax.nn.log_softmax),
}
"""Element-wise operators, and the softmax."""
