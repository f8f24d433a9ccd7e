"""Raw bytes: round trips, views, and sizes that lie."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.errors import RequestError
from apparate_jax.serve.protocol.datatypes import DTYPES
from apparate_jax.serve.protocol.raw import as_objects, decode_raw, encode_raw

FIXED = [name for name in DTYPES if name != "BYTES"]


@pytest.mark.parametrize("name", FIXED)
@given(data=st.data())
def test_round_trip(name, data):
    dtype = DTYPES[name]
    shape = tuple(data.draw(st.lists(st.integers(1, 3), max_size=3)))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    raw = bytes(data.draw(st.lists(st.integers(0, 255), min_size=count, max_size=count)))
    if name == "BOOL":
        raw = bytes(octet & 1 for octet in raw)
    before, after = b"{abc", b"more"
    array = decode_raw("x", name, shape, before + raw + after, len(before), len(raw))
    assert array.shape == shape
    assert array.dtype == dtype
    assert encode_raw(array) == raw


def test_the_wire_is_little_endian_and_row_major():
    array = np.array([[1, 2], [3, 0x0102]], np.int16)
    assert encode_raw(array.T) == bytes([1, 0, 3, 0, 2, 0, 2, 1])
    assert encode_raw(array.astype(">i2")) == encode_raw(array)


def test_numbers_are_not_copied():
    body = bytes(3) + np.arange(4, dtype=np.float32).tobytes()
    array = decode_raw("x", "FP32", (2, 2), body, 3, 16)
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    assert not array.flags.writeable


@given(items=st.lists(st.binary(max_size=20), min_size=1, max_size=6))
def test_bytes_round_trip(items):
    raw = encode_raw(as_objects("t", items, (len(items),)))
    assert raw == b"".join(struct.pack("<I", len(item)) + item for item in items)
    assert decode_raw("t", "BYTES", (len(items),), raw, 0, len(raw)).tolist() == items


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_size_that_does_not_fit_the_shape_is_refused(size):
    with pytest.raises(RequestError, match=f"{size} raw bytes, expected 16 bytes for FP32"):
        decode_raw("x", "FP32", (2, 2), bytes(64), 0, size)


def test_a_huge_shape_allocates_nothing():
    with pytest.raises(RequestError, match="expected 40000000000000000000 bytes"):
        decode_raw("x", "INT32", (10**10, 10**9), bytes(8), 0, 8)


def test_booleans_are_zero_or_one():
    with pytest.raises(RequestError, match="holds byte 7, expected 0 or 1"):
        decode_raw("x", "BOOL", (3,), b"\x00\x07\x01", 0, 3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x01\x00", "ends inside of the length of element 0"),
        (b"\x05\x00\x00\x00ab", "element 0 of input 't' claims 5 bytes, but only 2 follow"),
        (b"\x01\x00\x00\x00a\xff\xff\xff\xffb", "element 1 .* claims 4294967295 bytes"),
        (b"\x00\x00\x00\x00", "holds 1 elements, expected 2"),
        (b"", "holds 0 elements, expected 2"),
    ],
)
def test_bytes_that_lie_are_refused(raw, message):
    with pytest.raises(RequestError, match=message):
        decode_raw("t", "BYTES", (2,), raw, 0, len(raw))
