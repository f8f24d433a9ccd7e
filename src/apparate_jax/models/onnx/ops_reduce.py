"""Operators that reduce or order along axes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.models.onnx.graph import Node
from apparate_jax.models.onnx.table import Array, Op, Table, attribute_or_input, ints, is_static, xp

Reduction = Callable[..., Array]


def _reduce(reduction: Reduction) -> Op:
    """``reduction(xp, x, axis=..., keepdims=...)`` over axes from an attribute or an input."""

    def run(node: Node, x: Array, axes: Array | None = None) -> Array:
        along = attribute_or_input(node, "axes", axes)
        if not along:
            if node.attributes.get("noop_with_empty_axes", 0):
                return reduction(xp(x), x, axis=(), keepdims=True).astype(x.dtype)
            along = tuple(range(x.ndim))
        keep = bool(node.attributes.get("keepdims", 1))
        return reduction(xp(x), x, axis=along, keepdims=keep).astype(x.dtype)

    return Op(run, static=(1,))


def _named(name: str) -> Op:
    return _reduce(lambda np_like, x, **how: getattr(np_like, name)(x, **how))


def _l2(np_like: Any, x: Array, **how: Any) -> Array:
    return np_like.sqrt(np_like.sum(np_like.square(x), **how))


def _log_sum_exp(np_like: Any, x: Array, **how: Any) -> Array:
    return jax.nn.logsumexp(jnp.asarray(x, jnp.result_type(x, jnp.float16)), **how)


def _arg(name: str) -> Op:
    def run(node: Node, x: Array) -> Array:
        axis, keep = node.attributes.get("axis", 0), bool(node.attributes.get("keepdims", 1))
        np_like = xp(x)
        if not node.attributes.get("select_last_index", 0):
            return getattr(np_like, name)(x, axis=axis, keepdims=keep)
        found = getattr(np_like, name)(np_like.flip(x, axis), axis=axis, keepdims=keep)
        return x.shape[axis] - 1 - found

    return Op(run)


def _cumulative(name: str) -> Op:
    def run(node: Node, x: Array, axis: Array) -> Array:
        (along,) = ints(axis)
        np_like = xp(x)
        backwards = node.attributes.get("reverse", 0)
        values = np_like.flip(x, along) if backwards else x
        if node.attributes.get("exclusive", 0):
            first = np_like.full_like(
                np_like.take(values, np.asarray([0]), axis=along), int(name == "cumprod")
            )
            kept = np_like.take(values, np.arange(x.shape[along] - 1), axis=along)
            values = np_like.concatenate([first, kept], axis=along)
        total = getattr(np_like, name)(values, axis=along).astype(x.dtype)
        return np_like.flip(total, along) if backwards else total

    return Op(run, static=(1,))


def _top_k(node: Node, x: Array, k: Array | None = None) -> tuple[Array, Array]:
    count = ints(k)[0] if k is not None else node.attributes["k"]
    axis = node.attributes.get("axis", -1)
    # A stable sort keeps the lower index first among equals, which ONNX asks for.
    order = jnp.argsort(
        x, axis=axis, stable=True, descending=bool(node.attributes.get("largest", 1))
    )
    order = jax.lax.slice_in_dim(order, 0, count, axis=axis)
    return jnp.take_along_axis(jnp.asarray(x), order, axis=axis), order


def _extreme(name: str) -> Op:
    """Maximum or minimum, which ONNX defines for an empty axis too."""

    def reduction(np_like: Any, x: Array, **how: Any) -> Array:
        if x.dtype == np.bool_:
            return getattr(np_like, "any" if name == "max" else "all")(x, **how)
        if is_static(x) or x.size:
            return getattr(np_like, name)(x, **how)
        infinite = -np.inf if name == "max" else np.inf
        return getattr(np_like, name)(x, initial=infinite, **how)

    return _reduce(reduction)


REDUCE: Table = {
    "ReduceSum": _named("sum"),
    "ReduceMean": _named("mean"),
    "ReduceProd": _named("prod"),
    "ReduceMax": _extreme("max"),
    "ReduceMin": _extreme("min"),
    "ReduceL1": _reduce(lambda np_like, x, **how: np_like.sum(np_like.abs(x), **how)),
    "ReduceL2": _reduce(_l2),
    "ReduceLogSum": _reduce(lambda np_like, x, **how: np_like.log(np_like.sum(x, **how))),
    "ReduceLogSumExp": _reduce(_log_sum_exp),
    "ReduceSumSquare": _reduce(lambda np_like, x, **how: np_like.sum(np_like.square(x), **how)),
    "ArgMax": _arg("argmax"),
    "ArgMin": _arg("argmin"),
    "CumSum": _cumulative("cumsum"),
    "CumProd": _cumulative("cumprod"),
    "TopK": Op(_top_k, static=(1,)),
}
"""Operators that reduce or order along axes."""
