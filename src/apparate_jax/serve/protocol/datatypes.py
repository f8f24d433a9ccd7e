"""Datatypes of the Open Inference Protocol and the NumPy dtypes that hold them.

Sharp edge: elements of ``BYTES`` tensors are Python ``bytes`` in an object array.

References:
    Open Inference Protocol, "Tensor Data Types".
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import ConfigError, RequestError

BYTES = "BYTES"

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype("<u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("<i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        "BF16": np.dtype(jnp.bfloat16),
        BYTES: np.dtype(object),
    }
)
"""NumPy dtype of each datatype of the protocol; elements are little endian on the wire."""

_BY_NAME = MappingProxyType({dtype.name: name for name, dtype in DTYPES.items()})
_BY_DTYPE = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})


def datatype_of(dtype: str | np.dtype[Any]) -> str:
    """The protocol's name of a NumPy dtype, or of a dtype's name.

    Raises:
        ConfigError: If the protocol has no such datatype.

    >>> datatype_of("int32"), datatype_of(np.dtype("bool"))
    ('INT32', 'BOOL')
    """
    # A dtype's name is computed at each access: several microseconds, many times per request.
    known = _BY_NAME.get(dtype) if isinstance(dtype, str) else _BY_DTYPE.get(dtype)
    if known is None:
        raise ConfigError(
            f"dtype {str(dtype)!r} cannot be served: the protocol has only {', '.join(_BY_NAME)}"
        )
    return known


def value_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Smallest and largest finite value of a dtype of numbers or booleans."""
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind in "iu":
        whole = np.iinfo(dtype)
        return int(whole.min), int(whole.max)
    limits = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    return float(limits.min), float(limits.max)


def fit_integers(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert whole numbers (or booleans) to another such dtype without changing a value.

    Args:
        array: Of dtype kind ``b``, ``i`` or ``u``, any shape.
        dtype: Wanted, of one of these kinds.

    Returns:
        The array itself when it has that dtype already, else a new one.

    Raises:
        RequestError: If a value does not fit; says the range that was got and the one expected.

    >>> fit_integers(np.array([7, 9]), np.dtype("int8")).dtype.name
    'int8'
    """
    if array.dtype == dtype:
        return array
    if array.size:
        low, high = int(array.min()), int(array.max())
        least, most = value_range(dtype)
        if low < least or high > most:
            raise RequestError(
                f"values lie in {low}..{high}, but {datatype_of(dtype)} holds {least}..{most}"
            )
    return array.astype(dtype)
