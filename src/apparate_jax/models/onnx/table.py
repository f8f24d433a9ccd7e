"""What an entry of an op table is, and what the ops share.

An op is a small function ``(node, *inputs) -> output or outputs``. Inputs are NumPy arrays where
their values are known without the data (shapes, indices, constants) and JAX arrays otherwise; an
optional input that is left out is None. Ops that only move or combine values give NumPy for NumPy,
so that computations of shapes are folded while tracing, whatever the batch size.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from apparate_jax.errors import ModelError
from apparate_jax.models.onnx.graph import Node

Array = Any
"""A NumPy array (known without the data) or a JAX array."""

NumPyLike = Any
"""The module ``numpy`` or ``jax.numpy``."""


class Op(NamedTuple):
    """An operator.

    Attributes:
        run: ``(node, *inputs) -> output``, or a tuple of outputs.
        static: Positions of inputs that must be known without the data.
    """

    run: Callable[..., Any]
    static: tuple[int, ...] = ()


Table = Mapping[str, Op]
"""Operators by type."""


def is_static(value: Any) -> bool:
    """Whether a value is known without the data."""
    return value is None or isinstance(value, np.ndarray | np.generic)


def xp(*values: Any) -> NumPyLike:
    """``numpy`` if all values are known without the data, else ``jax.numpy``."""
    return np if all(map(is_static, values)) else jnp


def unsupported(node: Node, what: str) -> ModelError:
    """The error for a variant of an operator that nobody wrote."""
    return ModelError(f"{node} {what}, which is not supported: export the model without it")


def ints(value: Array) -> tuple[int, ...]:
    """Whole numbers of a static array or an attribute."""
    return tuple(int(n) for n in np.asarray(value).reshape(-1))


def attribute_or_input(node: Node, name: str, value: Array | None) -> tuple[int, ...] | None:
    """Whole numbers that older opsets give as an attribute and newer ones as an input."""
    if value is not None:
        return ints(value)
    given = node.attributes.get(name)
    return None if given is None else ints(given)


def dtype_of(node: Node, code: int) -> np.dtype[Any]:
    """NumPy dtype of an element type in an attribute.

    Raises:
        ModelError: Texts, or a type without NumPy counterpart.
    """
    from onnx import helper

    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(code))
    except KeyError:
        dtype = np.dtype(object)
    if dtype.kind in "OSU":
        raise unsupported(node, f"makes elements of type {code}")
    return dtype
