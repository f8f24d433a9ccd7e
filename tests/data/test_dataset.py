"""Data sets in memory, the circle over one, and arrays that are made to fit a model or refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.core import InputSpec, Model
from apparate_jax.data.dataset import ArrayDataset, Circle, class_indices, fit
from apparate_jax.errors import DataError


def model_of(*specs, labels=()):
    return Model("m", lambda params, *inputs: inputs[0], {}, specs, labels)


TWO = model_of(InputSpec("ids", (3,), "int32"), InputSpec("weight", (), "float32"))


def two(rows=5):
    ids = np.arange(rows * 3, dtype=np.int32).reshape(rows, 3)
    labels = np.arange(rows)
    return ArrayDataset("two", (ids, np.linspace(0, 1, rows, dtype=np.float32)), labels)


def test_rows_examples_and_slices():
    data = two()
    assert len(data) == 5
    ids, weight = data.rows(1, 3)
    np.testing.assert_array_equal(ids, [[3, 4, 5], [6, 7, 8]])
    np.testing.assert_array_equal(weight, [0.25, 0.5])
    example = data.example(4, TWO)
    assert list(example) == ["ids", "weight"] and example["ids"].shape == (3,)
    part = data[1:4]
    assert len(part) == 3 and part.labels.tolist() == [1, 2, 3] and part.name == "two"
    assert ArrayDataset("n", data.inputs)[:2].labels is None
    assert len(ArrayDataset("none", ())) == 0


def test_inputs_of_other_lengths():
    with pytest.raises(DataError, match=r"the inputs have \[2, 3\] rows"):
        ArrayDataset("x", (np.zeros(2), np.zeros(3)))


@given(st.integers(1, 7), st.integers(0, 30), st.integers(1, 30), st.integers(0, 40))
def test_a_circle_against_indexing(rows, first, count, start):
    data, circle = two(rows), Circle(two(rows), first, count)
    wanted = (first + np.arange(count)) % rows
    assert len(circle) == count and circle.labels.tolist() == wanted.tolist()
    stop = start + 6
    found = circle.rows(start, stop)
    for values, all_values in zip(found, data.inputs, strict=True):
        np.testing.assert_array_equal(values, all_values[wanted[start:stop]])
    example = circle.example(count - 1, TWO)
    np.testing.assert_array_equal(example["ids"], data.inputs[0][wanted[-1]])


def test_arrays_come_in_the_models_order():
    arrays = {"weight": np.zeros(2, "f"), "more": np.zeros(9), "ids": np.ones((2, 3), np.int32)}
    ids, weight = fit("d", arrays, TWO)
    assert ids is arrays["ids"] and weight is arrays["weight"], "nothing is copied in vain"


INTEGERS = ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"]


@settings(deadline=None)
@given(
    st.sampled_from(INTEGERS),
    st.sampled_from(INTEGERS),
    st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=4),
)
def test_integers_are_cast_if_they_stay_the_same(source, target, values):
    info = np.iinfo(source)
    values = [v for v in values if info.min <= v <= info.max] or [1]
    wanted = np.iinfo(target)
    model = model_of(InputSpec("x", (), target))
    given_ = {"x": np.array(values, source)}
    if all(wanted.min <= v <= wanted.max for v in values):
        (found,) = fit("d", given_, model)
        assert found.dtype == target and found.tolist() == values
    else:
        with pytest.raises(DataError, match=f"x is {source}, expected {target}"):
            fit("d", given_, model)


@pytest.mark.parametrize("source", ["float16", "float64", "int8", "uint64"])
@pytest.mark.parametrize("target", ["float32", "bfloat16", "float16"])
def test_numbers_become_floats(source, target):
    values = np.array([0, 1, 3], source)
    (found,) = fit("d", {"x": values}, model_of(InputSpec("x", (), target)))
    assert found.dtype == jnp.dtype(target) and found.tolist() == [0, 1, 3]


def test_infinities_and_nan_stay_but_none_is_made():
    model = model_of(InputSpec("x", (), "float32"))
    (found,) = fit("d", {"x": np.array([np.inf, np.nan, 1.0])}, model)
    np.testing.assert_array_equal(found, [np.inf, np.nan, 1.0])
    with pytest.raises(DataError, match="x is float64, expected float32"):
        fit("d", {"x": np.array([1e300])}, model)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int32", np.array([1.0])),
        ("int32", np.array([True])),
        ("int32", np.array(["1"])),
        ("float32", np.array(["1"])),
        ("float32", np.array([1j])),
        ("float32", np.array([None])),
        ("bool", np.array([1])),
        ("float32", np.array(["2024-01-01"], "datetime64[D]")),
    ],
)
def test_values_of_another_kind(dtype, values):
    with pytest.raises(DataError, match=rf"d: x is .*, expected {dtype} \(or values"):
        fit("d", {"x": values}, model_of(InputSpec("x", (), dtype)))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": np.ones((2, 3), np.int32)}, r"d has \['ids'\], expected the model's inputs \["),
        ({}, r"d has \[\], expected"),
        (
            {"ids": np.ones((2, 4), np.int32), "weight": np.ones(2, "f")},
            r"ids is \[2, 4\], expected \[count, 3\]",
        ),
        (
            {"ids": np.ones((2, 3), np.int32), "weight": np.ones((2, 1), "f")},
            r"weight is \[2, 1\], expected \[count",
        ),
        (
            {"ids": np.ones((2, 3), np.int32), "weight": np.ones(3, "f")},
            r"have \[2, 3\] rows, expected equal and not 0",
        ),
        (
            {"ids": np.ones((0, 3), np.int32), "weight": np.ones(0, "f")},
            r"have \[0, 0\] rows, expected equal and not 0",
        ),
    ],
)
def test_arrays_that_do_not_fit(arrays, message):
    with pytest.raises(DataError, match=message):
        fit("d", arrays, TWO)


def test_labels_by_name_or_number():
    model = model_of(InputSpec("x", (), "int32"), labels=("no", "yes", "7"))
    found = class_indices("d", ["yes", 0, "no", "2", np.int64(1), "7"], model)
    # A name goes before a number that looks like it.
    assert found.tolist() == [1, 0, 0, 2, 1, 2] and found.dtype == np.int64
    assert class_indices("d", None, model) is None
    assert class_indices("d", [], model).tolist() == []


@pytest.mark.parametrize("value", ["maybe", None, [1], "1.5", ""])
def test_labels_of_something_else(value):
    model = model_of(InputSpec("x", (), "int32"), labels=("no", "yes"))
    with pytest.raises(DataError, match=r"d: labels must be class numbers or one of \['no', 'yes'"):
        class_indices("d", ["no", value], model)
