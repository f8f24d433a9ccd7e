"""Tensors as typed protobuf fields, one repeated field for each group of datatypes.

Elements keep their meaning: a value that the datatype cannot hold is refused rather than wrapped.

References:
    Open Inference Protocol v2, "Tensor Data" of gRPC.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import RequestError
from apparate_jax.serve.grpc.inference_pb2 import InferTensorContents
from apparate_jax.serve.protocol import BYTES, DTYPES
from apparate_jax.serve.protocol.datatypes import fit_integers
from apparate_jax.serve.protocol.raw import as_objects, check_count

_FIELDS: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {
        "BOOL": ("bool_contents", np.bool_),
        "INT8": ("int_contents", np.int32),
        "INT16": ("int_contents", np.int32),
        "INT32": ("int_contents", np.int32),
        "INT64": ("int64_contents", np.int64),
        "UINT8": ("uint_contents", np.uint32),
        "UINT16": ("uint_contents", np.uint32),
        "UINT32": ("uint_contents", np.uint32),
        "UINT64": ("uint64_contents", np.uint64),
        "FP32": ("fp32_contents", np.float32),
        "FP64": ("fp64_contents", np.float64),
        BYTES: ("bytes_contents", object),
    }
)
"""Field of each datatype, and the dtype of the field's elements."""


def decode_contents(
    name: str, datatype: str, shape: tuple[int, ...], contents: InferTensorContents
) -> NDArray[Any]:
    """Read a tensor from typed fields.

    Args:
        name: Of the tensor, for messages.
        datatype: One of :data:`~apparate_jax.serve.protocol.datatypes.DTYPES`.
        shape: Shape, the batch axis included.
        contents: The fields; exactly that of the datatype holds elements.

    Returns:
        A new array of that datatype and shape.

    Raises:
        RequestError: If the datatype has no field, another field holds elements, or the elements'
            number or range does not fit.
    """
    if datatype not in _FIELDS:
        raise RequestError(
            f"input {name!r} is {datatype}, which has no typed contents: send raw_input_contents"
        )
    field, wide = _FIELDS[datatype]
    used = [descriptor.name for descriptor, _ in contents.ListFields()]
    if used != [field]:
        raise RequestError(
            f"input {name!r} is {datatype} and has {' and '.join(used) or 'no contents'}, expected "
            f"{field} or raw_input_contents"
        )
    values = getattr(contents, field)
    check_count(name, len(values), shape)
    if datatype == BYTES:
        return as_objects(name, list(values), shape)
    array = np.fromiter(values, wide, len(values)).reshape(shape)
    try:
        return fit_integers(array, DTYPES[datatype])
    except RequestError as error:
        raise RequestError(f"input {name!r}: {error}") from None
