"""Inference requests: from the body's bytes to arrays.

A body is JSON, or JSON of a length told in ``Inference-Header-Content-Length`` followed by the raw
bytes of those tensors that have a ``binary_data_size``, in the order of ``inputs``. Sizes, counts
and lengths that contradict each other are refused before anything is allocated for them.

Sharp edges: unknown parameters are passed on, as the protocol allows them; those that would change
the answer's form and are not supported (shared memory) are refused.

References:
    Open Inference Protocol v2, "Inference Request JSON Object"; the extensions "binary tensor
    data" and "parameters".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

from numpy.typing import NDArray

from apparate_jax.errors import RequestError
from apparate_jax.serve.protocol.fields import (
    check_supported,
    checked_datatype,
    checked_name,
    checked_shape,
    classes_asked,
)
from apparate_jax.serve.protocol.json_values import decode_json
from apparate_jax.serve.protocol.raw import decode_raw


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that a client asks for.

    Attributes:
        name: Of the output.
        binary: Whether it is to be sent as raw bytes.
        classes: How many classes to send instead of values; 0 for the values.
    """

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """A parsed request.

    Attributes:
        id: The client's identifier, returned with the answer.
        parameters: As sent.
        inputs: Arrays ``[n, ...]`` by name, of the datatype that was sent.
        outputs: Outputs in the order asked for; None asks for the default ones.
        binary_output: Whether outputs that were not named are to be sent as raw bytes.
    """

    id: str | None
    parameters: Mapping[str, Any]
    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[RequestedOutput, ...] | None
    binary_output: bool


def parse_infer_request(body: bytes, header_length: int | None = None) -> InferRequest:
    """Read the body of an inference request.

    Args:
        body: The whole body, decompressed.
        header_length: Length of its JSON part in bytes, from ``Inference-Header-Content-Length``;
            None when all of it is JSON.

    Returns:
        The request; its arrays agree with the shapes and datatypes that it states.

    Raises:
        RequestError: If the body is not such a request.
    """
    if header_length is None:
        header_length = len(body)
    elif not 0 < header_length <= len(body):
        raise RequestError(
            f"Inference-Header-Content-Length is {header_length}, expected 1..{len(body)} for a "
            f"body of {len(body)} bytes (a body without its JSON part is not supported)"
        )
    request = _parse_object(body[:header_length])
    parameters = _object(request, "parameters", "the request")
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(f"id is {short(request_id)}, expected a string")
    binary = _flag(parameters, "binary_data_output", False, "the request")
    return InferRequest(
        id=request_id,
        parameters=parameters,
        inputs=_parse_inputs(request, body, header_length),
        outputs=_parse_outputs(request, binary),
        binary_output=binary,
    )


def _parse_object(text: bytes) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except RecursionError:
        raise RequestError("the request's JSON is nested too deeply") from None
    except ValueError as error:
        raise RequestError(f"the request is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RequestError(f"the request is {short(request)}, expected a JSON object")
    return request


def _parse_inputs(request: Mapping[str, Any], body: bytes, at: int) -> dict[str, NDArray[Any]]:
    inputs: dict[str, NDArray[Any]] = {}
    for position, entry in enumerate(_objects(request, "inputs")):
        name = checked_name(entry.get("name"), f"inputs[{position}]")
        where = f"input {name!r}"
        if name in inputs:
            raise RequestError(f"{where} is there twice, expected each once")
        datatype = checked_datatype(entry.get("datatype"), name)
        shape = checked_shape(entry.get("shape"), name)
        size = _supported(entry, where).get("binary_data_size")
        if size is None:
            inputs[name] = decode_json(name, datatype, shape, entry.get("data"))
            continue
        if "data" in entry:
            raise RequestError(f"{where} has both data and binary_data_size, expected one of them")
        _check_size(where, size, len(body) - at)
        inputs[name] = decode_raw(name, datatype, shape, body, at, size)
        at += size
    if at != len(body):
        raise RequestError(
            f"{len(body) - at} bytes follow the last tensor, expected none: check binary_data_size "
            "and Inference-Header-Content-Length"
        )
    return inputs


def _check_size(where: str, size: Any, left: int) -> None:
    if type(size) is not int or size < 0:
        raise RequestError(f"{where} has binary_data_size {short(size)}, expected bytes, 0 or more")
    if size > left:
        raise RequestError(
            f"{where} has binary_data_size {size}, but only {left} bytes of the body are left: "
            "check Inference-Header-Content-Length and the order of the tensors"
        )


def _parse_outputs(request: Mapping[str, Any], default: bool) -> tuple[RequestedOutput, ...] | None:
    # Triton's clients send an empty list where they mean "the default ones".
    if request.get("outputs") in (None, []):
        return None
    outputs: dict[str, RequestedOutput] = {}
    for position, entry in enumerate(_objects(request, "outputs")):
        name = checked_name(entry.get("name"), f"outputs[{position}]")
        where = f"output {name!r}"
        if name in outputs:
            raise RequestError(f"{where} is asked for twice, expected each once")
        parameters = _supported(entry, where)
        binary = _flag(parameters, "binary_data", default, where)
        outputs[name] = RequestedOutput(name, binary, classes_asked(parameters, where))
    return tuple(outputs.values())


def _objects(request: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = request.get(key)
    if not isinstance(entries, list) or not entries:
        raise RequestError(f"{key!r} is {short(entries)}, expected a list of at least one object")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise RequestError(f"{key}[{position}] is {short(entry)}, expected an object")
    return entries


def _object(entry: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = entry.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"{key} of {where} is {short(value)}, expected an object")
    return value


def _supported(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The parameters of a tensor, none of which asks for an extension that is not there."""
    parameters = _object(entry, "parameters", where)
    check_supported(parameters, where)
    return parameters


def _flag(parameters: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise RequestError(f"{key} of {where} is {short(value)}, expected true or false")
    return value
