"""Operators that ask for shapes, and that arrange values: reshape, slice, join, pad, cast."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.errors import ModelError
from apparate_jax.models.onnx.graph import Node
from apparate_jax.models.onnx.table import (
    Array,
    Op,
    Table,
    attribute_or_input,
    dtype_of,
    ints,
    is_static,
    unsupported,
    xp,
)


def _shape(node: Node, x: Array) -> Array:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.asarray(x.shape[start:end], np.int64)


def _reshape(node: Node, x: Array, shape: Array) -> Array:
    keep_zero = node.attributes.get("allowzero", 0)
    sizes = [
        x.shape[i] if size == 0 and not keep_zero else size for i, size in enumerate(ints(shape))
    ]
    return x.reshape(sizes)


def _flatten(node: Node, x: Array) -> Array:
    axis = node.attributes.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return xp(x).squeeze(x, attribute_or_input(node, "axes", axes))


def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    wanted = attribute_or_input(node, "axes", axes)
    return xp(x).expand_dims(x, wanted or ())


def _transpose(node: Node, x: Array) -> Array:
    return xp(x).transpose(x, node.attributes.get("perm"))


def _concat(node: Node, *values: Array) -> Array:
    return xp(*values).concatenate(values, axis=node.attributes["axis"])


def _split(node: Node, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    axis = node.attributes.get("axis", 0)
    lengths = attribute_or_input(node, "split", sizes)
    if lengths is None:
        parts = node.attributes.get("num_outputs", len(node.outputs))
        length = -(-x.shape[axis] // parts)
        lengths = (*(length,) * (parts - 1), x.shape[axis] - length * (parts - 1))
    return tuple(xp(x).split(x, np.cumsum(lengths)[:-1].tolist(), axis=axis))


def _slice(
    node: Node,
    x: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    first = attribute_or_input(node, "starts", starts) or ()
    last = attribute_or_input(node, "ends", ends) or ()
    along = attribute_or_input(node, "axes", axes) or tuple(range(len(first)))
    stride = (1,) * len(first) if steps is None else ints(steps)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, first, last, stride, strict=True):
        index[axis] = _python_slice(start, end, step, x.shape[axis])
    return x[tuple(index)]


def _python_slice(start: int, end: int, step: int, size: int) -> slice:
    """ONNX clamps what Python would take from the end, if it is beyond the front."""
    if step < 0:
        start = min(start + size if start < 0 else start, size - 1)
        end = max(end + size if end < 0 else end, -1)
        return slice(start, None if end < 0 else end, step) if start >= 0 else slice(0, 0)
    return slice(start, end, step)


def _wrapped(indices: Array, size: int) -> Array:
    """Indices with the negative ones counted from the end."""
    return xp(indices).where(indices < 0, indices + size, indices)


def _gather(node: Node, x: Array, indices: Array) -> Array:
    axis = node.attributes.get("axis", 0)
    at = _wrapped(indices, x.shape[axis])
    if is_static(x) and is_static(at):
        return np.take(x, at, axis=axis)
    return jnp.take(x, at, axis=axis, mode="clip")


def _gather_elements(node: Node, x: Array, indices: Array) -> Array:
    axis = node.attributes.get("axis", 0)
    return xp(x, indices).take_along_axis(x, _wrapped(indices, x.shape[axis]), axis=axis)


def _gather_nd(node: Node, x: Array, indices: Array) -> Array:
    def take(values: Array, at: Array) -> Array:
        return values[tuple(at[..., i] for i in range(at.shape[-1]))]

    batch_dims = node.attributes.get("batch_dims", 0)
    if batch_dims:
        x, indices = jnp.asarray(x), jnp.asarray(indices)
    elif not (is_static(x) and is_static(indices)):
        x = jnp.asarray(x)
    for _ in range(batch_dims):
        take = jax.vmap(take)
    return take(x, indices)


def _scatter_elements(node: Node, x: Array, indices: Array, updates: Array) -> Array:
    axis = node.attributes.get("axis", 0)
    at = list(np.indices(indices.shape, sparse=True))
    at[axis] = _wrapped(indices, x.shape[axis])
    return _scattered(node, x, tuple(at), updates)


def _scatter_nd(node: Node, x: Array, indices: Array, updates: Array) -> Array:
    at = tuple(_wrapped(indices[..., i], x.shape[i]) for i in range(indices.shape[-1]))
    return _scattered(node, x, at, updates)


def _scattered(node: Node, x: Array, at: tuple[Any, ...], updates: Array) -> Array:
    methods = {"none": "set", "add": "add", "mul": "multiply", "max": "max", "min": "min"}
    method = methods[node.attributes.get("reduction", "none")]
    if method == "set" and is_static(x) and is_static(updates) and all(map(is_static, at)):
        filled = x.copy()
        filled[at] = updates
        return filled
    return getattr(jnp.asarray(x).at[at], method)(updates)


def _expand(node: Node, x: Array, shape: Array) -> Array:
    return xp(x).broadcast_to(x, np.broadcast_shapes(x.shape, ints(shape)))


def _tile(node: Node, x: Array, repeats: Array) -> Array:
    return xp(x).tile(x, ints(repeats))


def _pad(
    node: Node,
    x: Array,
    pads: Array | None = None,
    value: Array | None = None,
    axes: Array | None = None,
) -> Array:
    amounts = attribute_or_input(node, "pads", pads) or ()
    along = ints(axes) if axes is not None else tuple(range(x.ndim))
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(along):
        widths[axis] = (amounts[i], amounts[i + len(along)])
    cut = tuple(
        slice(-min(low, 0), n + min(high, 0))
        for n, (low, high) in zip(x.shape, widths, strict=True)
    )
    widths = [(max(low, 0), max(high, 0)) for low, high in widths]
    mode = node.attributes.get("mode", "constant")
    if mode != "constant":
        return xp(x).pad(x[cut], widths, mode=mode)
    fill = node.attributes.get("value", 0.0) if value is None else value.reshape(())
    return xp(x, fill if value is not None else None).pad(x[cut], widths, constant_values=fill)


def _cast_to(x: Array, dtype: np.dtype[Any]) -> Array:
    if is_static(x):
        return np.asarray(x).astype(dtype)
    return x.astype(jax.dtypes.canonicalize_dtype(dtype))


def _cast(node: Node, x: Array) -> Array:
    return _cast_to(x, dtype_of(node, node.attributes["to"]))


def _constant(node: Node) -> Array:
    (name, value), *_ = node.attributes.items()
    if value is None or name.startswith(("value_string", "sparse")):
        raise unsupported(node, f"holds a {name}")
    kinds: dict[str, Any] = {"value_int": np.int64, "value_ints": np.int64}
    return np.asarray(value, None if name == "value" else kinds.get(name, np.float32))


def _constant_of_shape(node: Node, shape: Array) -> Array:
    value = node.attributes.get("value")
    fill = np.zeros((), np.float32) if value is None else np.asarray(value).reshape(())
    return np.broadcast_to(fill, ints(shape))


def _one_hot(node: Node, indices: Array, depth: Array, values: Array) -> Array:
    size = ints(depth)[0]
    at = _wrapped(indices.astype(np.int32), size)
    np_like = xp(at, values)
    axis = node.attributes.get("axis", -1)
    axis = axis + indices.ndim + 1 if axis < 0 else axis
    places = np.arange(size).reshape([-1 if i == axis else 1 for i in range(indices.ndim + 1)])
    hot = np_like.expand_dims(at, axis) == places
    return np_like.where(hot, values[1], values[0])


def _trilu(node: Node, x: Array, k: Array | None = None) -> Array:
    name = "triu" if node.attributes.get("upper", 1) else "tril"
    return getattr(xp(x), name)(x, 0 if k is None else ints(k)[0])


def _eye_like(node: Node, x: Array) -> Array:
    code = node.attributes.get("dtype")
    dtype = x.dtype if code is None else dtype_of(node, code)
    rows, columns = x.shape
    return np.eye(rows, columns, k=node.attributes.get("k", 0), dtype=dtype)


def _depth_to_space(node: Node, x: Array) -> Array:
    n, c, h, w = x.shape
    b = node.attributes["blocksize"]
    if node.attributes.get("mode", "DCR") == "DCR":
        parts = x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(node: Node, x: Array) -> Array:
    n, c, h, w = x.shape
    b = node.attributes["blocksize"]
    order = (
        (0, 3, 5, 1, 2, 4) if node.attributes.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    )
    parts = x.reshape(n, c, h // b, b, w // b, b).transpose(order)
    return parts.reshape(n, c * b**2, h // b, w // b)


def _non_zero(node: Node, x: Array) -> Array:
    return np.stack(np.nonzero(np.atleast_1d(x))).astype(np.int64)


def _dropout(node: Node, x: Array, ratio: Array | None = None, train: Array | None = None) -> Any:
    if train is not None and bool(train):
        raise ModelError(f"{node} is in training mode: export the model for inference")
    return x, np.ones(x.shape, bool)


def _range(node: Node, start: Array, limit: Array, delta: Array) -> Array:
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


SHAPE: Table = {
    "Shape": Op(_shape),
    "Size": Op(lambda node, x: np.asarray(x.size, np.int64)),
    "Reshape": Op(_reshape, static=(1,)),
    "Flatten": Op(_flatten),
    "Squeeze": Op(_squeeze, static=(1,)),
    "Unsqueeze": Op(_unsqueeze, static=(1,)),
    "Transpose": Op(_transpose),
    "Concat": Op(_concat),
    "Split": Op(_split, static=(1,)),
    "Slice": Op(_slice, static=(1, 2, 3, 4)),
    "Gather": Op(_gather),
    "GatherElements": Op(_gather_elements),
    "GatherND": Op(_gather_nd),
    "Scatter": Op(_scatter_elements),
    "ScatterElements": Op(_scatter_elements),
    "ScatterND": Op(_scatter_nd),
    "Expand": Op(_expand, static=(1,)),
    "Tile": Op(_tile, static=(1,)),
    "Pad": Op(_pad, static=(1, 3)),
    "Cast": Op(_cast),
    "CastLike": Op(lambda node, x, like: _cast_to(x, np.dtype(like.dtype))),
    "Identity": Op(lambda node, x: x),
    "Dropout": Op(_dropout, static=(1, 2)),
    "Constant": Op(_constant),
    "ConstantOfShape": Op(_constant_of_shape, static=(0,)),
    "Range": Op(_range, static=(0, 1, 2)),
    "OneHot": Op(_one_hot, static=(1,)),
    "Trilu": Op(_trilu, static=(1,)),
    "EyeLike": Op(_eye_like),
    "DepthToSpace": Op(_depth_to_space),
    "SpaceToDepth": Op(_space_to_depth),
    "NonZero": Op(_non_zero, static=(0,)),
}
"""Operators that arrange values, and that ask for shapes."""
