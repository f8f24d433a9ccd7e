"""Requests: the two forms of body, every field's check, and no other error on any bytes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.errors import RequestError
from apparate_jax.serve.protocol import RequestedOutput, parse_infer_request

X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1.5, 2.5]]}


def body(**fields):
    return json.dumps({"inputs": [X], **fields}).encode()


def binary_body(tensors, **fields):
    """A body with raw tensors, and the length of its JSON part."""
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, datatype, array in tensors
    ]
    head = json.dumps({"inputs": inputs, **fields}).encode()
    return head + b"".join(array.tobytes() for _, _, array in tensors), len(head)


def test_json_request():
    request = parse_infer_request(
        body(
            id="a1",
            parameters={"timeout": 5, "mine": "x"},
            outputs=[{"name": "label"}, {"name": "logits", "parameters": {"binary_data": True}}],
        )
    )
    assert request.id == "a1"
    assert request.parameters == {"timeout": 5, "mine": "x"}
    np.testing.assert_array_equal(request.inputs["x"], np.array([[1.5, 2.5]], np.float32))
    assert request.outputs == (RequestedOutput("label", False), RequestedOutput("logits", True))
    assert not request.binary_output


def test_what_is_left_out_has_defaults():
    request = parse_infer_request(body())
    assert (request.id, request.parameters, request.outputs) == (None, {}, None)
    assert parse_infer_request(body(outputs=[])).outputs is None


def test_binary_request_in_order_of_the_inputs():
    ids = np.array([[7, 8, 9]], np.int64)
    mask = np.array([[True, False, True]])
    raw, length = binary_body([("ids", "INT64", ids), ("mask", "BOOL", mask)])
    request = parse_infer_request(raw, length)
    assert list(request.inputs) == ["ids", "mask"]
    np.testing.assert_array_equal(request.inputs["ids"], ids, strict=True)
    np.testing.assert_array_equal(request.inputs["mask"], mask, strict=True)


def test_json_and_binary_tensors_in_one_request():
    ids = np.array([[7]], np.int32)
    entry = {
        "name": "ids",
        "shape": [1, 1],
        "datatype": "INT32",
        "parameters": {"binary_data_size": 4},
    }
    head = json.dumps({"inputs": [X, entry]}).encode()
    request = parse_infer_request(head + ids.tobytes(), len(head))
    assert request.inputs["ids"].tolist() == [[7]]
    assert request.inputs["x"].tolist() == [[1.5, 2.5]]


def test_binary_output_holds_for_all_unless_one_says_otherwise():
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}]
    request = parse_infer_request(body(parameters={"binary_data_output": True}, outputs=outputs))
    assert request.binary_output
    assert request.outputs == (RequestedOutput("a", True), RequestedOutput("b", False))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the request is not JSON"),
        (b"{", "the request is not JSON"),
        (b'{"inputs": [\xff]}', "the request is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", r"the request is \[1\], expected a JSON object"),
        (b"{}", "'inputs' is None, expected a list of at least one object"),
        (b'{"inputs": []}', r"'inputs' is \[\], expected a list of at least one"),
        (b'{"inputs": {"x": 1}}', "expected a list of at least one object"),
        (b'{"inputs": [3]}', r"inputs\[0\] is 3, expected an object"),
        (body(id=5), "id is 5, expected a string"),
        (body(parameters=[1]), r"parameters of the request is \[1\], expected an object"),
        (body(parameters={"binary_data_output": 1}), "is 1, expected true or false"),
        (body(inputs=[X, X]), "input 'x' is there twice"),
        (body(outputs=[{"name": "a"}, {"name": "a"}]), "output 'a' is asked for twice"),
        (body(outputs=[{}]), r"name of outputs\[0\] is None"),
        (body(outputs="label"), "'outputs' is 'label', expected a list"),
        (
            body(outputs=[{"name": "a", "parameters": {"binary_data": "yes"}}]),
            "binary_data of output 'a' is 'yes', expected true or false",
        ),
        (
            body(outputs=[{"name": "a", "parameters": {"classification": 0}}]),
            "classification of output 'a' is 0, expected a number of classes",
        ),
    ],
)
def test_malformed_requests_are_refused(raw, message):
    with pytest.raises(RequestError, match=message):
        parse_infer_request(raw)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, r"the name of inputs\[0\] is None, expected 1\.\.256 characters"),
        ({"name": ""}, "expected 1..256 characters"),
        ({"name": "n" * 257}, "expected 1..256 characters"),
        ({"datatype": "FLOAT"}, "datatype of input 'x' is 'FLOAT', expected one of BOOL, UINT8"),
        ({"datatype": ["FP32"]}, "expected one of BOOL"),
        ({"shape": None}, "shape of input 'x' is None"),
        ({"shape": [1, -1]}, r"shape of input 'x' is \[1, -1\]"),
        ({"shape": [0, 2]}, "whole numbers of at least 1"),
        ({"shape": [1.0, 2]}, "whole numbers of at least 1"),
        ({"shape": [True, 2]}, "whole numbers of at least 1"),
        ({"shape": [1] * 33, "data": [1]}, "expected at most 32 whole numbers"),
        ({"data": None}, "data of input 'x' is None"),
        ({"parameters": 4}, "parameters of input 'x' is 4, expected an object"),
        ({"parameters": {"binary_data_size": 8}}, "both data and binary_data_size"),
        ({"parameters": {"shared_memory_region": "r"}}, "does not support"),
    ],
)
def test_malformed_inputs_are_refused(changes, message):
    with pytest.raises(RequestError, match=message):
        parse_infer_request(json.dumps({"inputs": [{**X, **changes}]}).encode())


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-1, "binary_data_size -1, expected bytes, 0 or more"),
        ("16", "binary_data_size '16'"),
        (True, "binary_data_size True"),
        (8.0, r"binary_data_size 8\.0"),
        (9, "binary_data_size 9, but only 8 bytes of the body are left"),
        (2**62, "but only 8 bytes"),
        (4, "4 raw bytes, expected 8 bytes for FP32"),
        (0, "0 raw bytes, expected 8 bytes for FP32"),
    ],
)
def test_binary_sizes_that_lie_are_refused(size, message):
    entry = {"name": "x", "shape": [1, 2], "datatype": "FP32"}
    head = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": size}}]}).encode()
    with pytest.raises(RequestError, match=message):
        parse_infer_request(head + bytes(8), len(head))


def test_truncated_and_trailing_bytes_are_refused():
    raw, length = binary_body([("x", "FP32", np.ones((1, 2), np.float32))])
    with pytest.raises(RequestError, match="binary_data_size 8, but only 7 bytes"):
        parse_infer_request(raw[:-1], length)
    with pytest.raises(RequestError, match="3 bytes follow the last tensor, expected none"):
        parse_infer_request(raw + bytes(3), length)


@pytest.mark.parametrize("length", [0, 10_000])
def test_a_json_length_outside_of_the_body_is_refused(length):
    with pytest.raises(RequestError, match=f"Inference-Header-Content-Length is {length}"):
        parse_infer_request(body(), length)


def test_a_json_length_that_cuts_the_json_is_refused():
    with pytest.raises(RequestError, match="not JSON"):
        parse_infer_request(body(), len(body()) - 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(fields=st.dictionaries(st.sampled_from([*X, "parameters"]), JSON), outputs=JSON, extra=JSON)
def test_any_json_is_parsed_or_refused(fields, outputs, extra):
    request = {"inputs": [{**X, **fields}], "outputs": outputs, "parameters": extra}
    try:
        parsed = parse_infer_request(json.dumps(request).encode())
    except RequestError as error:
        assert str(error)
    else:
        array = next(iter(parsed.inputs.values()))
        assert list(array.shape) == {**X, **fields}["shape"]


@settings(max_examples=300)
@given(data=st.data())
def test_any_damage_is_parsed_or_refused(data):
    raw, length = binary_body(
        [("ids", "INT64", np.arange(6).reshape(2, 3)), ("m", "BOOL", np.ones((2, 3), np.bool_))]
    )
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        parse_infer_request(bytes(damaged[:cut]), data.draw(st.integers(0, len(raw)) | st.none()))
        parse_infer_request(bytes(damaged), length)
    except RequestError as error:
        assert str(error)
