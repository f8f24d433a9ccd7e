"""Responses: JSON, raw, and both in one."""

import json

import numpy as np
import pytest

from apparate_jax.serve.protocol import OutputTensor, encode_infer_response

LOGITS = np.array([[0.5, -1.0]], np.float32)
NAMES = np.array([b"layer.3", "é".encode()], object)


def test_json_response():
    body, header_length = encode_infer_response(
        "m",
        "2",
        [OutputTensor("logits", LOGITS), OutputTensor("exit", NAMES)],
        request_id="a",
        parameters={"exit": "final", "error": 0.25},
    )
    assert header_length is None
    assert json.loads(body) == {
        "model_name": "m",
        "model_version": "2",
        "id": "a",
        "parameters": {"exit": "final", "error": 0.25},
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -1.0]},
            {"name": "exit", "datatype": "BYTES", "shape": [2], "data": ["layer.3", "é"]},
        ],
    }


def test_what_is_not_there_is_left_out():
    body, _ = encode_infer_response("m", "1", [OutputTensor("logits", LOGITS)])
    assert json.loads(body).keys() == {"model_name", "model_version", "outputs"}


def test_raw_tensors_follow_in_the_order_of_the_outputs():
    labels = np.array([3, -1], np.int64)
    body, header_length = encode_infer_response(
        "m",
        "1",
        [
            OutputTensor("exit", NAMES, binary=True),
            OutputTensor("logits", LOGITS),
            OutputTensor("label", labels, binary=True),
        ],
    )
    head = json.loads(body[:header_length])
    exit_, logits, label = head["outputs"]
    assert logits["data"] == [0.5, -1.0]
    assert "parameters" not in logits
    assert "data" not in exit_ and "data" not in label
    sizes = [entry["parameters"]["binary_data_size"] for entry in (exit_, label)]
    tail = body[header_length:]
    assert sizes == [4 + 7 + 4 + 2, 16]
    assert tail[: sizes[0]] == b"\x07\x00\x00\x00layer.3\x02\x00\x00\x00\xc3\xa9"
    assert tail[sizes[0] :] == labels.tobytes()


def test_values_that_json_cannot_hold_are_not_sent():
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_infer_response("m", "1", [OutputTensor("logits", LOGITS * np.inf)])
