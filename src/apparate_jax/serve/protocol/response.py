"""Inference responses: from arrays to the body's bytes.

References:
    Open Inference Protocol v2, "Inference Response JSON Object"; the extension "binary tensor
    data".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from apparate_jax.serve.protocol.datatypes import datatype_of
from apparate_jax.serve.protocol.json_values import encode_json
from apparate_jax.serve.protocol.raw import encode_raw

Scalar = str | int | float | bool
"""Values that parameters may have."""

_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True, eq=False)
class OutputTensor:
    """An output of a response.

    Attributes:
        name: Of the output.
        array: Values; an object array of ``bytes`` becomes ``BYTES``.
        binary: Whether it is sent as raw bytes.
    """

    name: str
    array: NDArray[Any]
    binary: bool = False


def encode_infer_response(
    model_name: str,
    model_version: str,
    outputs: Sequence[OutputTensor],
    *,
    request_id: str | None = None,
    parameters: Mapping[str, Scalar] | None = None,
) -> tuple[bytes, int | None]:
    """Write the body of an inference response.

    Args:
        model_name: Of the model that answered.
        model_version: Its version.
        outputs: In the order in which the client gets them.
        request_id: The client's identifier.
        parameters: Scalars that go with the answer.

    Returns:
        The body, and the length of its JSON part in bytes (None when all of it is JSON): the
        value of the header ``Inference-Header-Content-Length``.

    Raises:
        ValueError: If a value that goes out as JSON is not finite.
    """
    response: dict[str, Any] = {"model_name": model_name, "model_version": model_version}
    if request_id is not None:
        response["id"] = request_id
    if parameters:
        response["parameters"] = dict(parameters)
    tail: list[bytes] = []
    response["outputs"] = [_encode(output, tail) for output in outputs]
    head = _JSON.encode(response).encode()
    if not any(output.binary for output in outputs):
        return head, None
    return b"".join([head, *tail]), len(head)


def _encode(output: OutputTensor, tail: list[bytes]) -> dict[str, Any]:
    """The output's JSON object; its raw bytes, if it has any, go to ``tail``."""
    entry: dict[str, Any] = {
        "name": output.name,
        "datatype": datatype_of(output.array.dtype),
        "shape": list(output.array.shape),
    }
    if output.binary:
        tail.append(encode_raw(output.array))
        entry["parameters"] = {"binary_data_size": len(tail[-1])}
    else:
        entry["data"] = encode_json(output.array)
    return entry
