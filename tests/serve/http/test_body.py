"""Compression in both directions, and which coding a client accepts."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.errors import ConfigError
from apparate_jax.serve.http import HttpLimits
from apparate_jax.serve.http.body import accepted_coding, compress, decompress
from apparate_jax.serve.http.errors import HttpRefusal


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@given(body=st.binary(max_size=200))
def test_round_trip(coding, body):
    assert decompress(compress(body, coding), coding, HttpLimits()) == body


@pytest.mark.parametrize(
    ("coding", "reference"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)]
)
def test_others_can_read_it(coding, reference):
    assert reference(compress(b"logits" * 100, coding)) == b"logits" * 100


def test_the_limit_is_the_last_size_that_passes():
    packed = compress(bytes(1000), "gzip")
    assert len(decompress(packed, "gzip", HttpLimits(max_body_bytes=1000))) == 1000
    with pytest.raises(HttpRefusal, match="larger than 999 bytes"):
        decompress(packed, "gzip", HttpLimits(max_body_bytes=999))


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        (b"gzip, deflate", "gzip"),
        (b"deflate", "deflate"),
        (b"br , GZIP;q=0.3", "gzip"),
        (b"gzip; q=0, deflate", "deflate"),
        (b"gzip;q=0.0", None),
        (b"identity", None),
        (b"", None),
    ],
)
def test_the_coding_that_a_client_accepts(accepts, coding):
    assert accepted_coding({b"accept-encoding": accepts}) == coding


def test_no_header_accepts_nothing():
    assert accepted_coding({}) is None


@pytest.mark.parametrize("name", ["max_body_bytes", "body_timeout_s"])
def test_limits_are_positive(name):
    with pytest.raises(ConfigError, match=f"{name} is 0, expected more than 0"):
        HttpLimits(**{name: 0})


@pytest.mark.parametrize("name", ["compress_from_bytes", "retry_after_s"])
def test_limits_are_not_negative(name):
    assert getattr(HttpLimits(**{name: 0}), name) == 0
    with pytest.raises(ConfigError, match=f"{name} is -1, expected 0 or more"):
        HttpLimits(**{name: -1})
