"""Tensors as raw bytes: little endian, row major, without padding.

A ``BYTES`` element is its length (4 bytes, unsigned) and then its bytes; ``BOOL`` is one byte.

Sharp edge: decoded tensors are read-only **views** of the request's body, possibly unaligned.

References:
    The protocol's extension "binary tensor data".
"""

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import RequestError
from apparate_jax.serve.protocol.datatypes import BYTES, DTYPES

_LENGTH = struct.Struct("<I")


def decode_raw(
    name: str, datatype: str, shape: tuple[int, ...], body: bytes, start: int, size: int
) -> NDArray[Any]:
    """Read a tensor from raw bytes.

    Args:
        name: Of the tensor, for messages.
        datatype: One of :data:`~apparate_jax.serve.protocol.datatypes.DTYPES`.
        shape: Shape, the batch axis included.
        body: The whole request body.
        start: Where the tensor begins in ``body``, bytes.
        size: Its length in bytes; ``start + size`` does not pass the end of ``body``.

    Returns:
        Array of that shape: a view of ``body``, except for ``BYTES``.

    Raises:
        RequestError: If ``size`` is not what datatype and shape need, or the content is malformed.
    """
    if datatype == BYTES:
        return as_objects(name, _split(name, body[start : start + size]), shape)
    dtype = DTYPES[datatype]
    count = prod(shape)
    if size != count * dtype.itemsize:
        raise RequestError(
            f"input {name!r} has {size} raw bytes, expected {count * dtype.itemsize} bytes for "
            f"{datatype} {list(shape)}"
        )
    if datatype != "BOOL":
        return np.frombuffer(body, dtype, count, start).reshape(shape)
    octets = np.frombuffer(body, np.uint8, count, start)
    if octets.max() > 1:
        raise RequestError(f"input {name!r} is BOOL and holds byte {octets.max()}, expected 0 or 1")
    return octets.view(np.bool_).reshape(shape)


def _split(name: str, raw: bytes) -> list[bytes]:
    """Elements of a ``BYTES`` tensor."""
    elements: list[bytes] = []
    at = 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            raise RequestError(
                f"input {name!r} ends inside of the length of element {len(elements)}: expected "
                "4 bytes of length before each element"
            )
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > len(raw):
            raise RequestError(
                f"element {len(elements)} of input {name!r} claims {length} bytes, "
                f"but only {len(raw) - at} follow"
            )
        elements.append(raw[at : at + length])
        at += length
    return elements


def as_objects(name: str, elements: Sequence[bytes], shape: tuple[int, ...]) -> NDArray[Any]:
    """Object array of a ``BYTES`` tensor.

    Raises:
        RequestError: If the number of elements is not that of ``shape``.
    """
    check_count(name, len(elements), shape)
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def check_count(name: str, count: int, shape: tuple[int, ...]) -> None:
    """Hold the number of elements that are there against the shape that was stated.

    Raises:
        RequestError: If they differ.
    """
    if count != prod(shape):
        raise RequestError(
            f"input {name!r} holds {count} elements, expected {prod(shape)} for shape {list(shape)}"
        )


def encode_raw(array: NDArray[Any]) -> bytes:
    """Raw bytes of a tensor; object arrays hold ``bytes`` and become ``BYTES``."""
    if array.dtype == np.object_:
        return b"".join(_LENGTH.pack(len(item)) + item for item in array.ravel())
    little: NDArray[Any] = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little.tobytes()
