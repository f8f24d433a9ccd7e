"""Between protobuf messages and what every frontend shares: requests in, replies out."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from apparate_jax.errors import RequestError
from apparate_jax.serve.grpc.contents import decode_contents
from apparate_jax.serve.grpc.inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
)
from apparate_jax.serve.inference import Reply
from apparate_jax.serve.protocol import InferRequest, RequestedOutput, Scalar, datatype_of
from apparate_jax.serve.protocol.fields import (
    check_supported,
    checked_datatype,
    checked_name,
    checked_shape,
    classes_asked,
)
from apparate_jax.serve.protocol.raw import decode_raw, encode_raw


def decode_request(message: ModelInferRequest) -> InferRequest:
    """Read an inference request.

    Returns:
        The request; its arrays agree with the shapes and datatypes that it states. All outputs are
        asked for as raw bytes: that is how they travel here.

    Raises:
        RequestError: If names, datatypes, shapes or contents contradict each other, or something
            is asked for that is not supported.
    """
    outputs = _decode_outputs(message)
    return InferRequest(
        id=message.id or None,
        parameters=decode_parameters(message.parameters),
        inputs=_decode_inputs(message),
        outputs=outputs or None,
        binary_output=True,
    )


def decode_parameters(parameters: Mapping[str, InferParameter]) -> dict[str, Scalar]:
    """Parameters as plain values, without those that have none."""
    values: dict[str, Scalar] = {}
    for key, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            values[key] = getattr(parameter, choice)
    return values


def _decode_inputs(message: ModelInferRequest) -> dict[str, NDArray[Any]]:
    raw = message.raw_input_contents
    for tensor in message.inputs:
        check_supported(tensor.parameters, f"input {tensor.name!r}")
    if raw and len(raw) != len(message.inputs):
        raise RequestError(
            f"there are {len(raw)} raw_input_contents, expected one for each of the "
            f"{len(message.inputs)} inputs, or none at all"
        )
    inputs: dict[str, NDArray[Any]] = {}
    for position, tensor in enumerate(message.inputs):
        name = checked_name(tensor.name, f"inputs[{position}]")
        if name in inputs:
            raise RequestError(f"input {name!r} is there twice, expected each once")
        datatype = checked_datatype(tensor.datatype, name)
        shape = checked_shape(list(tensor.shape), name)
        if not raw:
            inputs[name] = decode_contents(name, datatype, shape, tensor.contents)
            continue
        if tensor.contents.ListFields():
            raise RequestError(
                f"input {name!r} has both contents and raw_input_contents, expected one of them"
            )
        inputs[name] = decode_raw(name, datatype, shape, raw[position], 0, len(raw[position]))
    return inputs


def _decode_outputs(message: ModelInferRequest) -> tuple[RequestedOutput, ...]:
    outputs: dict[str, RequestedOutput] = {}
    for position, tensor in enumerate(message.outputs):
        name = checked_name(tensor.name, f"outputs[{position}]")
        where = f"output {name!r}"
        if name in outputs:
            raise RequestError(f"{where} is asked for twice, expected each once")
        parameters = decode_parameters(tensor.parameters)
        check_supported(parameters, where)
        outputs[name] = RequestedOutput(name, True, classes_asked(parameters, where))
    return tuple(outputs.values())


def encode_reply(
    reply: Reply, model_name: str, model_version: str, request_id: str
) -> ModelInferResponse:
    """Write a reply.

    Args:
        reply: Tensors and parameters.
        model_name: Of the model that answered.
        model_version: Its version.
        request_id: The client's identifier, empty if it gave none.
    """
    response = ModelInferResponse(model_name=model_name, model_version=model_version, id=request_id)
    set_parameters(response.parameters, reply.parameters)
    for output in reply.outputs:
        response.outputs.add(
            name=output.name,
            datatype=datatype_of(output.array.dtype),
            shape=output.array.shape,
        )
        response.raw_output_contents.append(encode_raw(output.array))
    return response


def set_parameters(target: Any, values: Mapping[str, Scalar]) -> None:
    """Add plain values to a message's map of parameters."""
    for key, value in values.items():
        # A bool is an int to Python: it comes first.
        if isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int):
            target[key].int64_param = value
        elif isinstance(value, float):
            target[key].double_param = value
        else:
            target[key].string_param = value
