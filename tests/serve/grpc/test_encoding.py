"""Requests from protobuf, replies to protobuf."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.errors import RequestError
from apparate_jax.serve.grpc.encoding import decode_request, encode_reply
from apparate_jax.serve.grpc.inference_pb2 import ModelInferRequest
from apparate_jax.serve.inference import Reply
from apparate_jax.serve.protocol import OutputTensor, RequestedOutput
from tests.serve.grpc.serving import parameters_of

X = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
TYPED = {**X, "contents": {"fp32_contents": [1.0, 2.0]}}
RAW = np.array([1.0, 2.0], "<f4").tobytes()
SHARED = {"shared_memory_region": {"string_param": "r"}}


@pytest.mark.parametrize(
    "fields", [{"inputs": [TYPED]}, {"inputs": [X], "raw_input_contents": [RAW]}]
)
def test_raw_and_typed_inputs(fields):
    request = decode_request(ModelInferRequest(**fields))
    np.testing.assert_array_equal(request.inputs["x"], np.array([[1, 2]], np.float32), strict=True)
    assert (request.id, request.outputs, request.binary_output) == (None, None, True)


def test_everything_else_of_a_request():
    message = ModelInferRequest(
        id="a1",
        inputs=[TYPED],
        outputs=[
            {"name": "label"},
            {"name": "logits", "parameters": {"classification": {"int64_param": 3}}},
        ],
        parameters={
            "priority": {"uint64_param": 2**64 - 1},
            "timeout": {"int64_param": 5},
            "accuracy": {"string_param": "exact"},
            "flag": {"bool_param": False},
            "share": {"double_param": 0.5},
            "nothing": {},
        },
    )
    request = decode_request(message)
    assert request.id == "a1"
    assert request.outputs == (RequestedOutput("label", True), RequestedOutput("logits", True, 3))
    assert request.parameters == {
        "priority": 2**64 - 1,
        "timeout": 5,
        "accuracy": "exact",
        "flag": False,
        "share": 0.5,
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": [X, X], "raw_input_contents": [RAW]}, "1 raw_input_contents, expected one for"),
        ({"inputs": [], "raw_input_contents": [RAW]}, "each of the 0 inputs, or none"),
        ({"inputs": [TYPED], "raw_input_contents": [RAW]}, "both contents and raw_input_contents"),
        ({"inputs": [TYPED, TYPED]}, "input 'x' is there twice"),
        ({"inputs": [X], "raw_input_contents": [RAW[:-1]]}, "7 raw bytes, expected 8 bytes for"),
        ({"inputs": [{**X, "name": ""}]}, r"the name of inputs\[0\] is '', expected 1..256"),
        ({"inputs": [{**X, "datatype": "FLOAT"}]}, "datatype of input 'x' is 'FLOAT'"),
        ({"inputs": [{**X, "shape": [1, -2]}]}, r"shape of input 'x' is \[1, -2\]"),
        ({"inputs": [{**X, "parameters": SHARED}]}, "'shared_memory_region', which this server"),
        ({"outputs": [{"name": "a", "parameters": SHARED}]}, "output 'a' has parameter 'shared"),
        ({"outputs": [{"name": "a"}, {"name": "a"}]}, "output 'a' is asked for twice"),
        ({"outputs": [{}]}, r"the name of outputs\[0\] is ''"),
        (
            {"outputs": [{"name": "a", "parameters": {"classification": {"int64_param": 0}}}]},
            "classification of output 'a' is 0",
        ),
    ],
)
def test_requests_that_contradict_themselves(fields, message):
    with pytest.raises(RequestError, match=message):
        decode_request(ModelInferRequest(**fields))


@given(body=st.binary(max_size=60))
def test_any_bytes_are_refused_or_decoded(body):
    whole = ModelInferRequest(inputs=[TYPED], raw_input_contents=[]).SerializeToString()
    try:
        message = ModelInferRequest.FromString(whole + body)
    except Exception:
        return
    try:
        decode_request(message)
    except RequestError as error:
        assert str(error)


def test_a_reply():
    words = np.empty((1,), object)
    words[:] = [b"final"]
    reply = Reply(
        [OutputTensor("logits", np.array([[1, 2]], np.float32)), OutputTensor("exit", words)],
        {"exit": "final", "exit_depth": 1.0, "provisional": False, "count": 3},
    )
    response = encode_reply(reply, "m", "3", "a1")
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "a1")
    told = [(o.name, o.datatype, list(o.shape)) for o in response.outputs]
    assert told == [("logits", "FP32", [1, 2]), ("exit", "BYTES", [1])]
    assert list(response.raw_output_contents) == [RAW, b"\5\0\0\0final"]
    assert parameters_of(response) == reply.parameters
