"""JSON values: flat or nested, of the right type, within the datatype's range."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from apparate_jax.errors import RequestError
from apparate_jax.serve.protocol.datatypes import DTYPES
from apparate_jax.serve.protocol.json_values import decode_json, encode_json

NUMERIC = [name for name in DTYPES if name not in ("BYTES", "BF16")]


@pytest.mark.parametrize("name", NUMERIC)
@given(data=st.data())
def test_flat_and_nested_round_trips(name, data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=3))
    finite = {"allow_nan": False, "allow_infinity": False} if DTYPES[name].kind == "f" else {}
    elements = hnp.from_dtype(DTYPES[name], **finite)
    array = data.draw(hnp.arrays(DTYPES[name], shape, elements=elements))
    for values in (encode_json(array), array.tolist()):
        parsed = decode_json("x", name, shape, json.loads(json.dumps(values)))
        assert parsed.dtype == array.dtype
        np.testing.assert_array_equal(parsed, array, strict=True)


def test_bfloat16():
    parsed = decode_json("x", "BF16", (2,), [1.5, -2])
    assert parsed.dtype.name == "bfloat16"
    assert parsed.tolist() == [1.5, -2.0]


def test_text_becomes_utf8_bytes_and_back():
    parsed = decode_json("t", "BYTES", (1, 2), [["é", ""]])
    assert parsed.tolist() == [["é".encode(), b""]]
    assert encode_json(parsed) == ["é", ""]


def test_booleans_count_as_whole_numbers():
    assert decode_json("m", "INT32", (2,), [True, False]).tolist() == [1, 0]
    assert decode_json("m", "BOOL", (2,), [1, False]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", (2,), [1.0], "holds 1 elements, expected 2 for shape"),
        ("FP32", (2,), [], "holds 0 elements, expected 2"),
        ("FP32", (2,), None, "data of input 'x' is None, expected a list"),
        ("FP32", (1,), 3.5, "is 3.5, expected a list"),
        ("FP32", (1,), {"a": 1}, "expected a list"),
        ("FP32", (1,), ["1.5"], "is FP32 and holds strings, expected numbers"),
        ("FP32", (2,), [None, 1.0], "holds null, expected numbers"),
        ("FP32", (2,), [True, {}], "holds objects and true or false, expected numbers"),
        ("INT64", (2,), [1, 2.0], "numbers with a fraction, expected whole numbers"),
        ("INT64", (1,), ["1"], "holds strings, expected whole numbers"),
        ("BOOL", (1,), ["true"], "holds strings, expected true, false, 0 or 1"),
        ("BOOL", (1,), [2], r"values from 2 to 2, expected 0\.\.1 for BOOL"),
        ("BYTES", (1,), [1], "holds whole numbers, expected strings"),
        ("BYTES", (1,), ["\ud800"], "no UTF-8 form"),
        ("UINT8", (2,), [3, 256], r"values from 3 to 256, expected 0\.\.255 for UINT8"),
        ("UINT64", (1,), [-1], r"expected 0\.\.18446744073709551615"),
        ("INT64", (1,), [2**63], r"expected -9223372036854775808\.\."),
        ("INT8", (1,), [10**4000], r"\.\.\..*expected -128\.\.127 for INT8"),
        ("FP32", (1,), [1e300], r"values from 1e\+300 to .* for FP32"),
        ("FP32", (1,), [10**400], "for FP32"),
        ("FP16", (1,), [70000.0], r"expected -65504\.0\.\.65504\.0 for FP16"),
        ("BF16", (1,), [3.4e38], "for BF16"),
        ("FP32", (2, 2), [[1.0, 2.0], [3.0]], r"lists of \[1, 2\] elements on axis 1, expected 2"),
        ("FP32", (2, 2), [[1.0, 2.0], 3.0], "mixes lists and values on axis 0"),
        ("FP32", (2, 2), [1.0, [2.0], 3.0, 4.0], "holds lists, expected numbers"),
        ("FP32", (2, 2), [[1.0, 2.0]], "holds 2 elements, expected 4"),
        ("FP32", (2, 1), [[[1.0]], [[2.0]]], "nested deeper than its shape"),
        ("FP32", (4,), [[1.0, 2.0], [3.0, 4.0]], "nested deeper than its shape"),
        ("FP32", (2, 3), [[], []], r"lists of \[0\] elements"),
        ("FP32", (10**12,), [1.0], "holds 1 elements, expected 1000000000000"),
    ],
)
def test_values_that_do_not_fit_are_refused(datatype, shape, data, message):
    with pytest.raises(RequestError, match=message):
        decode_json("x", datatype, shape, data)


def test_one_long_string_among_many_values_stays_small():
    # NumPy's own guess would be 100,001 strings of a million characters each.
    with pytest.raises(RequestError, match="strings"):
        decode_json("x", "FP32", (100_001,), [0] * 100_000 + ["a" * 1_000_000])


def test_nan_and_infinity_pass():
    parsed = decode_json("x", "FP32", (3,), json.loads("[NaN, Infinity, -Infinity]"))
    np.testing.assert_array_equal(parsed, np.array([np.nan, np.inf, -np.inf], np.float32))
