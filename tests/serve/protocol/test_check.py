"""Requests against the model's inputs."""

import numpy as np
import pytest

from apparate_jax.core import InputSpec
from apparate_jax.errors import RequestError
from apparate_jax.serve.protocol import check_against

SPECS = (InputSpec("ids", (3,), "int32"), InputSpec("x", (2, 2), "float32"))


def inputs(rows=2, **changes):
    values = {
        "x": np.ones((rows, 2, 2), np.float32),
        "ids": np.arange(rows * 3, dtype=np.int32).reshape(rows, 3),
    }
    return {**values, **changes}


def test_what_fits_is_passed_on_in_the_models_order():
    given = inputs()
    checked = check_against(SPECS, given, 8)
    assert list(checked) == ["ids", "x"]
    assert checked["ids"] is given["ids"]
    assert checked["x"] is given["x"]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_that_fit_are_converted(dtype):
    given = np.array([[0, 1, 1]], dtype)
    checked = check_against(SPECS, inputs(1, ids=given), 8)
    assert checked["ids"].dtype == np.int32
    np.testing.assert_array_equal(checked["ids"], given)


def test_a_boolean_mask_may_be_sent_as_whole_numbers():
    checked = check_against([InputSpec("m", (2,), "bool")], {"m": np.array([[1, 0]])}, 1)
    np.testing.assert_array_equal(checked["m"], np.array([[True, False]]), strict=True)


def test_bfloat16_inputs():
    spec = InputSpec("x", (1,), "bfloat16")
    array = np.ones((1, 1), np.float32).astype("bfloat16")
    assert check_against([spec], {"x": array}, 1)["x"] is array


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"ids": np.ones((1, 3), np.int32)},
            r"input 'x' is missing: expected \['ids', 'x'\], got \['ids'\]",
        ),
        (inputs(y=np.ones(1)), "input 'y' is unknown: expected"),
        (
            {"ids": inputs()["ids"], "X": inputs()["x"]},
            "input 'X' is unknown, input 'x' is missing",
        ),
        (
            inputs(ids=np.ones((2, 4), np.int32)),
            r"'ids' has shape \[2, 4\], expected \[n, 3\] for n",
        ),
        (inputs(ids=np.ones(3, np.int32)), r"'ids' has shape \[3\], expected \[n, 3\]"),
        (inputs(ids=np.array(1, np.int32)), r"'ids' has shape \[\], expected \[n, 3\]"),
        (inputs(x=np.ones((2, 4), np.float32)), r"expected \[n, 2, 2\] for n examples"),
        (inputs(x=np.ones((2, 2, 2))), "'x' has datatype FP64, expected FP32"),
        (inputs(x=np.ones((2, 2, 2), np.int32)), "'x' has datatype INT32, expected FP32"),
        (inputs(ids=np.ones((2, 3), np.float32)), "'ids' has datatype FP32, expected INT32"),
        (inputs(ids=np.full((2, 3), b"a", object)), "'ids' has datatype BYTES, expected INT32"),
        (
            inputs(ids=np.full((2, 3), 2**40)),
            r"input 'ids': values lie in 1099511627776\.\..*INT32 holds -2147483648",
        ),
        (
            inputs(x=np.ones((3, 2, 2), np.float32)),
            r"differ in their number of examples .*'ids': 2, 'x': 3",
        ),
        (inputs(9), "holds 9 examples, expected at most 8: split it up"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(RequestError, match=message):
        check_against(SPECS, given, 8)
