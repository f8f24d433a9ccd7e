"""Datatypes: one name per dtype, and whole numbers that keep their value."""

import numpy as np
import pytest

from apparate_jax.errors import ConfigError, RequestError
from apparate_jax.serve.protocol.datatypes import DTYPES, datatype_of, fit_integers, value_range


def test_every_dtype_has_one_name():
    assert [datatype_of(dtype.name) for dtype in DTYPES.values()] == list(DTYPES)
    assert [datatype_of(dtype) for dtype in DTYPES.values()] == list(DTYPES)
    assert len(DTYPES) == 14


def test_a_dtype_that_the_protocol_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"'complex64' cannot be served.*float32"):
        datatype_of("complex64")
    with pytest.raises(ConfigError, match="'complex64' cannot be served"):
        datatype_of(np.dtype("complex64"))


@pytest.mark.parametrize("name", [n for n in DTYPES if DTYPES[n].kind in "biu"])
def test_whole_numbers_at_the_limits_fit(name):
    dtype = DTYPES[name]
    low, high = value_range(dtype)
    wide = np.array([low, high], np.uint64 if name == "UINT64" else np.int64)
    fitted = fit_integers(wide, dtype)
    assert fitted.dtype == dtype
    assert [int(v) for v in fitted] == [low, high]


@pytest.mark.parametrize("name", ["BOOL", "UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32"])
@pytest.mark.parametrize("beyond", ["below", "above"])
def test_whole_numbers_past_the_limits_are_refused(name, beyond):
    low, high = value_range(DTYPES[name])
    value = low - 1 if beyond == "below" else high + 1
    with pytest.raises(RequestError, match=rf"values lie in .*{name} holds {low}\.\.{high}"):
        fit_integers(np.array([0, value], np.int64), DTYPES[name])


def test_the_same_dtype_is_not_copied():
    array = np.arange(3, dtype=np.int32)
    assert fit_integers(array, np.dtype(np.int32)) is array
