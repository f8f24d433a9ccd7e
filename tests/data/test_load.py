"""``load_data``: from what the path is to arrays that fit the model."""

import json

import numpy as np
import pytest

from apparate_jax.core import InputSpec, Model
from apparate_jax.data import load_data
from apparate_jax.errors import DataError
from tests.data.test_text import LENGTH, PLAIN, model_with

NUMBERS = Model("m", lambda p, *x: x[0], {}, (InputSpec("x", (2,), "float32"),), ("no", "yes"))


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text('text,label,stars\n"great, great",1,5\nbad,0,1\nawful,0,1\n')
    return path


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_texts_become_tokens(texts):
    data = load_data(texts, model_with())
    assert data.name == "reviews.csv" and len(data) == 3
    ids, mask = data.rows(0, 3)
    assert ids.shape == mask.shape == (3, LENGTH) and ids.dtype == np.int32
    assert mask.sum(1).tolist() == [5, 3, 3]
    assert data.labels.tolist() == [1, 0, 0]
    assert set(data.example(0, model_with())) == {spec.name for spec in PLAIN}


def test_other_columns_and_a_limit(texts):
    data = load_data(texts, model_with(), label_column="stars", limit=2)
    assert len(data) == 2 and data.labels.tolist() == [5, 1]
    assert load_data(texts, model_with(), label_column="absent").labels is None
    assert len(load_data(texts, model_with(), limit=99)) == 3
    with pytest.raises(DataError, match=r"expected 'review' among them \(name another with"):
        load_data(texts, model_with(), text_column="review")


def test_labels_by_name(tmp_path):
    (tmp_path / "d.jsonl").write_text(
        "".join(json.dumps({"text": "a", "label": name}) + "\n" for name in ("yes", "no", "yes"))
    )
    model = Model("m", lambda p, *x: x[0], {}, PLAIN, ("no", "yes"), assets=model_with().assets)
    assert load_data(tmp_path / "d.jsonl", model).labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match=r"d.jsonl: labels must be class numbers or one of \[\]"):
        load_data(tmp_path / "d.jsonl", model_with())


@pytest.mark.parametrize(
    ("content", "row", "value"),
    [("text\n1\n2\n", 0, "1"), ('{"text": "a"}\n{"text": null}\n', 1, "None")],
)
def test_values_that_are_no_texts(tmp_path, content, row, value):
    path = tmp_path / ("d.csv" if content.startswith("text") else "d.jsonl")
    path.write_text(content)
    with pytest.raises(DataError, match=rf"{path.name}, row {row}: 'text' is {value}, expected a"):
        load_data(path, model_with())


def test_a_bad_row_beyond_the_limit_does_not_count(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    assert len(load_data(tmp_path / "d.jsonl", model_with(), limit=1)) == 1


def test_arrays_by_name(tmp_path):
    x = np.arange(12.0).reshape(6, 2)
    path = saved(tmp_path / "d.npz", x=x, label=["yes", "no", "yes", "no", "no", "no"], note="mine")
    data = load_data(path, NUMBERS, limit=4)
    assert len(data) == 4 and data.rows(0, 4)[0].dtype == np.float32
    np.testing.assert_array_equal(data.rows(0, 9)[0], x[:4])
    assert data.labels.tolist() == [1, 0, 1, 0]
    assert load_data(path, NUMBERS, label_column="x2").labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((3, 2))}, r"d.npz has \['y'\], expected the model's inputs \['x'\]"),
        ({"x": np.zeros((3, 3))}, r"x is \[3, 3\], expected \[count, 2\]"),
        ({"x": np.float32(1)}, r"x is \[1\], expected \[count, 2\]"),
        ({"x": np.zeros((0, 2))}, r"have \[0\] rows"),
        ({"x": np.array([["a", "b"]])}, "x is <U1, expected float32"),
        ({"x": np.zeros((3, 2)), "label": [1, 0]}, "2 labels for 3 rows"),
        ({"x": np.zeros((1, 2)), "label": [[1]]}, "labels must be class numbers"),
        ({"x": np.array([[None, None]])}, "cannot read"),
        ({}, r"d.npz has \[\], expected"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        load_data(saved(tmp_path / "d.npz", **arrays), NUMBERS)


def test_every_truncated_archive_is_an_error(tmp_path):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(40, 2)))
    raw = path.read_bytes()
    for size in range(0, len(raw), 23):
        path.write_bytes(raw[:size])
        with pytest.raises(DataError, match="cannot read"):
            load_data(path, NUMBERS)
    for place in range(len(raw) // 3, len(raw) // 2, 11):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 255]) + raw[place + 1 :])
        with pytest.raises(DataError, match="cannot read"):
            load_data(path, NUMBERS)


def test_an_array_alone_is_no_archive(tmp_path):
    np.save(tmp_path / "d.npy", np.zeros((3, 2)))
    (tmp_path / "d.npy").rename(tmp_path / "d.npz")
    with pytest.raises(DataError, match="cannot read"):
        load_data(tmp_path / "d.npz", NUMBERS)


@pytest.mark.parametrize("name", ["d.xlsx", "d", "d.csv.gz", "d.pkl"])
def test_files_of_an_unknown_kind(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=r"ends in '.*', expected one of \['.csv', '.jsonl'"):
        load_data(tmp_path / name, NUMBERS)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"no data file at .*absent\.csv"):
        load_data(tmp_path / "absent.csv", NUMBERS)


@pytest.mark.parametrize("limit", [0, -1])
def test_limits_below_one(texts, limit):
    with pytest.raises(DataError, match=f"limit is {limit}, expected at least 1"):
        load_data(texts, model_with(), limit=limit)


def test_reviews_that_people_wrote(request):
    path = request.config.rootpath.parent / "shared" / "data" / "text" / "amazon_reviews.csv"
    if not path.is_file():
        pytest.skip("the reviews are not there")
    with path.open(encoding="utf-8") as file:
        columns = file.readline().strip().split(",")
    column = next((c for c in columns if "review" in c.lower() or "text" in c.lower()), columns[0])
    data = load_data(path, model_with(), text_column=column, limit=500)
    assert len(data) == 500 and (data.rows(0, 500)[1].sum(1) >= 2).all()
