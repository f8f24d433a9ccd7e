"""Typed contents: every datatype, and what does not fit."""

import pytest

from apparate_jax.errors import RequestError
from apparate_jax.serve.grpc.contents import decode_contents
from apparate_jax.serve.grpc.inference_pb2 import InferTensorContents
from apparate_jax.serve.protocol import DTYPES


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 2**16 - 1]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [0.5, float("inf")]),
        ("FP64", "fp64_contents", [0.1, -1e300]),
        ("BYTES", "bytes_contents", [b"", b"\0text"]),
    ],
)
def test_every_datatype(datatype, field, values):
    array = decode_contents("x", datatype, (2, 1), InferTensorContents(**{field: values}))
    assert (array.dtype, array.shape) == (DTYPES[datatype], (2, 1))
    assert array.ravel().tolist() == values


@pytest.mark.parametrize(
    ("datatype", "contents", "message"),
    [
        ("FP32", {}, "'x' is FP32 and has no contents, expected fp32_contents or raw_input"),
        ("FP32", {"fp64_contents": [1.0, 2.0]}, "has fp64_contents, expected fp32_contents"),
        (
            "INT8",
            {"int_contents": [1, 2], "int64_contents": [1]},
            "has int_contents and int64_contents, expected int_contents",
        ),
        (
            "INT8",
            {"int_contents": [1, 128]},
            "'x': values lie in 1..128, but INT8",
        ),
        ("UINT8", {"uint_contents": [1, 256]}, "UINT8 holds 0..255"),
        ("FP32", {"fp32_contents": [1.0]}, r"holds 1 elements, expected 2 for shape \[2, 1\]"),
        ("BYTES", {"bytes_contents": [b"a"] * 3}, "holds 3 elements, expected 2"),
        ("BF16", {"fp32_contents": [1.0, 2.0]}, "BF16, which has no typed contents: send raw"),
        ("FP16", {}, "FP16, which has no typed contents"),
    ],
)
def test_contents_that_do_not_fit(datatype, contents, message):
    with pytest.raises(RequestError, match=message):
        decode_contents("x", datatype, (2, 1), InferTensorContents(**contents))


def test_a_huge_shape_allocates_nothing():
    with pytest.raises(RequestError, match="holds 1 elements"):
        decode_contents("x", "FP32", (2**62,), InferTensorContents(fp32_contents=[1.0]))
