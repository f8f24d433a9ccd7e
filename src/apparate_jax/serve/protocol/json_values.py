"""Tensors as JSON values, flat or nested as their shape is.

Elements keep their meaning: text is not read as a number, a fraction is not cut off, a value that
the datatype cannot hold is refused rather than wrapped. Types and nesting are checked level by
level with sets, before NumPy sees the values: its own guess may allocate without limit (one long
string among many values) and converts where it should refuse.

References:
    Open Inference Protocol, "Tensor Data".
"""

from itertools import chain
from reprlib import repr as short
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import RequestError
from apparate_jax.serve.protocol.datatypes import BYTES, DTYPES, fit_integers, value_range
from apparate_jax.serve.protocol.raw import as_objects, check_count

_KINDS = MappingProxyType(
    {
        str: "strings",
        float: "numbers with a fraction",
        int: "whole numbers",
        bool: "true or false",
        type(None): "null",
        dict: "objects",
        list: "lists",
    }
)


def decode_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> NDArray[Any]:
    """Read a tensor from JSON values.

    Args:
        name: Of the tensor, for messages.
        datatype: One of :data:`~apparate_jax.serve.protocol.datatypes.DTYPES`.
        shape: Shape, the batch axis included.
        data: Parsed JSON: a flat list, or lists nested as ``shape`` is.

    Returns:
        A new array of that datatype and shape.

    Raises:
        RequestError: If the elements' number, nesting, type or range does not fit.
    """
    flat = _flatten(name, data, shape)
    check_count(name, len(flat), shape)
    allowed, expected = _allowed(datatype)
    strange = set(map(type, flat)) - allowed
    if strange:
        raise RequestError(
            f"input {name!r} is {datatype} and holds "
            f"{' and '.join(sorted(_KINDS[kind] for kind in strange))}, expected {expected}"
        )
    if datatype == BYTES:
        return as_objects(name, _encoded(name, flat), shape)
    return _numbers(name, datatype, flat).reshape(shape)


def _allowed(datatype: str) -> tuple[set[type], str]:
    """JSON types of a datatype's elements, and how to call them."""
    if datatype == BYTES:
        return {str}, "strings"
    if datatype == "BOOL":
        return {bool, int}, "true, false, 0 or 1"
    if DTYPES[datatype].kind in "iu":
        return {int, bool}, "whole numbers"
    return {float, int}, "numbers"


def _flatten(name: str, data: Any, shape: tuple[int, ...]) -> list[Any]:
    """Row-major elements of flat or nested lists."""
    if not isinstance(data, list):
        raise RequestError(f"data of input {name!r} is {short(data)}, expected a list")
    flat: list[Any] = data
    axis = 0
    while flat and type(flat[0]) is list:
        if set(map(type, flat)) != {list}:
            raise RequestError(f"data of input {name!r} mixes lists and values on axis {axis}")
        axis += 1
        if axis >= len(shape):
            raise RequestError(
                f"data of input {name!r} is nested deeper than its shape {list(shape)}"
            )
        lengths = set(map(len, flat))
        if lengths != {shape[axis]}:
            raise RequestError(
                f"data of input {name!r} has lists of {short(sorted(lengths))} elements on axis "
                f"{axis}, expected {shape[axis]} for shape {list(shape)}"
            )
        flat = list(chain.from_iterable(flat))
    return flat


def _encoded(name: str, flat: list[str]) -> list[bytes]:
    try:
        return [text.encode() for text in flat]
    except UnicodeEncodeError as error:
        raise RequestError(
            f"input {name!r} holds text that has no UTF-8 form: {error.reason}"
        ) from None


def _numbers(name: str, datatype: str, flat: list[Any]) -> NDArray[Any]:
    """Elements in the datatype; refuses those that it cannot hold."""
    dtype = DTYPES[datatype]
    try:
        if dtype.kind == "b":
            return fit_integers(np.array(flat, np.int64), dtype)
        if dtype.kind in "iu":
            return np.array(flat, dtype)
        with np.errstate(over="raise"):
            return _floats(flat, dtype)
    except (OverflowError, FloatingPointError, RequestError):
        least, most = value_range(dtype)
        raise RequestError(
            f"input {name!r} holds values from {short(min(flat))} to {short(max(flat))}, "
            f"expected {least}..{most} for {datatype}"
        ) from None


def _floats(flat: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        return np.array(flat, dtype)
    # bfloat16 is not NumPy's own: its conversion gives infinity without telling.
    wide = np.array(flat, np.float32)
    narrow = wide.astype(dtype)
    if np.any(np.isinf(narrow.astype(np.float32)) & ~np.isinf(wide)):
        raise FloatingPointError("overflow")
    return narrow


def encode_json(array: NDArray[Any]) -> list[Any]:
    """Flat JSON values of a tensor; object arrays hold UTF-8 ``bytes`` and become strings."""
    if array.dtype == np.object_:
        return [item.decode() for item in array.ravel()]
    values: list[Any] = array.ravel().tolist()
    return values
