"""Recordings: kept on disk as they were, put together and cut, and what is none of them."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from apparate_jax.bench.recording import Part, concatenate, load
from apparate_jax.errors import DataError
from apparate_jax.ramps.train import Validation
from tests.bench import tiny

HELD_OUT = Validation(
    sites=(0, 1, 2),
    rows=np.arange(5),
    errors=np.full((5, 3), 0.25, np.float32),
    predictions=np.zeros((5, 3), np.int32),
    labels=np.zeros(5, np.int32),
)


def assert_same(one, other):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        elif isinstance(a, Validation):
            assert_same(a, b)
        else:
            assert a == b, field.name


@pytest.mark.parametrize(
    "changed",
    [{}, {"labels": None}, {"validation": HELD_OUT, "ramp_bytes": (8, 8, 16)}],
    ids=["labels", "no labels", "held-out samples"],
)
def test_there_and_back(tmp_path, changed):
    made = tiny.recording(**changed)
    made.errors[3, 1] = np.nan
    made.save(tmp_path / "stream.anything")
    assert_same(load(tmp_path / "stream.anything"), made)
    assert [entry.name for entry in tmp_path.iterdir()] == ["stream.anything"]


def test_nothing_in_it_is_executed(tmp_path):
    np.savez(tmp_path / "bad.npz", header=np.array([print], object))
    with pytest.raises(DataError, match="is no recording"):
        load(tmp_path / "bad.npz")


def test_agreement_by_hand():
    made = tiny.recording(
        2,
        predictions=np.array([[1, 2, 1], [0, 0, 2]], np.int32),
        final_predictions=np.array([1, 2], np.int32),
    )
    np.testing.assert_array_equal(made.agrees, [[True, False, True], [False, False, True]])


def test_streams_that_shift():
    first, second = tiny.recording(6), tiny.recording(4, seed=1, workload="other.csv")
    second = replace(second, parts=(Part("a", 0), Part("b", 3)))
    made = concatenate([first, second])
    assert len(made) == 10 and made.workload == "stream.csv, other.csv"
    assert made.parts == (("stream.csv", 0), ("a", 6), ("b", 9))
    np.testing.assert_array_equal(made.errors, np.concatenate([first.errors, second.errors]))
    assert_same(concatenate([first]), first)
    assert concatenate([first, replace(second, labels=None)]).labels is None


def test_only_streams_of_the_same_ramps_are_put_together():
    first = tiny.recording()
    for changed in ({"model": "other"}, {"site_names": ("x", "y", "z")}):
        with pytest.raises(DataError, match="record both with the same checkpoint"):
            concatenate([first, replace(first, **changed)])
    with pytest.raises(DataError, match="expected at least one"):
        concatenate([])


def test_a_slice_keeps_the_parts_that_it_holds():
    made = concatenate([tiny.recording(4, workload=w) for w in "abc"])
    made = replace(made, parts=(Part("a", 0), Part("b", 4), Part("c", 8)))
    cut = made.slice(5, 9)
    assert cut.parts == (("b", 0), ("c", 3))
    np.testing.assert_array_equal(cut.predictions, made.predictions[5:9])
    np.testing.assert_array_equal(cut.labels, made.labels[5:9])
    assert_same(made.slice(-1, 99), made)
    with pytest.raises(DataError, match="no rows are left of a recording of 12"):
        made.slice(3, 3)


def test_another_order():
    made = tiny.recording(5)
    turned = made.reorder(np.array([4, 4, 0]))
    np.testing.assert_array_equal(turned.errors, made.errors[[4, 4, 0]])
    assert len(turned) == 3
    for bad in ([5], [-1]):
        with pytest.raises(DataError, match="of a recording of 5 rows"):
            made.reorder(np.array(bad))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"errors": np.zeros((40, 2), np.float32)}, "errors is float32"),
        ({"errors": np.zeros((40, 3))}, "errors is float64"),
        ({"errors": np.full((40, 3), 1.5, np.float32)}, "its errors are not shares"),
        ({"errors": np.full((40, 3), -0.5, np.float32)}, "its errors are not shares"),
        ({"labels": np.zeros(39, np.int32)}, "labels is int32"),
        ({"depths": (0.5,)}, "its depths are not one per site"),
        ({"ramps": (0, 2, 1)}, "its ramps are not ascending sites"),
        ({"ramps": (0, 1, 3)}, "its ramps are not ascending sites"),
        ({"profile": replace(tiny.STREAM, shapes=())}, "its profile has no batch shapes"),
        ({"profile": replace(tiny.STREAM, sites=(5,))}, "not ascending sites"),
        ({"parts": ()}, "its parts do not begin with row 0"),
        ({"parts": (Part("a", 1),)}, "its parts do not begin with row 0"),
        ({"parts": (Part("a", 0), Part("b", 40))}, "its parts do not begin"),
        ({"ramp_bytes": (1,)}, "sizes are not one per ramp"),
        ({"validation": replace(HELD_OUT, sites=(0, 1))}, "its held-out samples are not of"),
    ],
)
def test_what_is_no_recording(changed, message):
    with pytest.raises(DataError, match=message):
        tiny.recording(**changed)


def _header(**changed):
    def change(arrays):
        header = {**json.loads(arrays["header"].tobytes()), **changed}
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("header"), "it has no 'header'"),
        (lambda a: a.pop("errors"), "errors"),
        (lambda a: a.update(more=np.zeros(3)), "more"),
        (lambda a: a.update(header=np.frombuffer(b"{", np.uint8)), "is no recording"),
        (lambda a: a.update(header=np.frombuffer(b"[1]", np.uint8)), "is no recording"),
        (lambda a: a.update(header=np.frombuffer(b"\xff", np.uint8)), "is no recording"),
        (_header(format=99), "of another format than 1"),
        (_header(ramps=None), "is no recording"),
        (_header(parts=[[1]]), "is no recording"),
        (_header(profile={}), "it has no 'shapes'"),
        (_header(surprise=1), "surprise"),
        (lambda a: a.update(errors=a["errors"][:3]), "this is no sound recording: errors is"),
    ],
)
def test_damaged_files(tmp_path, change, message):
    path = tmp_path / "stream.npz"
    tiny.recording().save(path)
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as raised:
        load(path)
    assert "record" in str(raised.value), "what to do"


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"PK\x03\x04" + b"\0" * 50, b"\x93NUMPY"])
def test_other_files(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="make one with apparate bench record"):
        load(tmp_path / "x.npz")
    with pytest.raises(DataError, match="is no recording"):
        load(tmp_path / "none.npz")


def test_a_file_that_was_cut_short(tmp_path):
    path = tmp_path / "stream.npz"
    tiny.recording(400).save(path)
    whole = path.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match="is no recording"):
            load(path)


def test_another_criterion():
    made = tiny.recording(6)
    assert made.with_criterion("error") is made
    with pytest.raises(DataError, match="no entropies: record the stream again"):
        made.with_criterion("entropy")
    with pytest.raises(DataError, match=r"'margin', expected one of \['error', 'entropy'\]"):
        made.with_criterion("margin")
    entropies = made.errors**2
    by_entropy = replace(made, entropies=entropies).with_criterion("entropy")
    np.testing.assert_array_equal(by_entropy.errors, entropies)
    assert by_entropy.validation is None


def test_what_a_recording_may_lack_follows_its_rows(tmp_path):
    made = tiny.recording(6)
    full = replace(made, entropies=made.errors**2, final_errors=made.errors[:, 2] / 2)
    full.save(tmp_path / "full.npz")
    for one in (full, load(tmp_path / "full.npz")):
        np.testing.assert_array_equal(one.slice(2, 4).entropies, full.entropies[2:4])
        np.testing.assert_array_equal(
            one.reorder(np.array([3, 0])).final_errors[0], full.final_errors[3]
        )
    both = concatenate([full, made])
    assert both.entropies is None and both.final_errors is None
    assert concatenate([full, full]).entropies.shape == (12, 3)
