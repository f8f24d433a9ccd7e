import json

import pytest

from apparate_jax.core import InputSpec
from apparate_jax.data import load_data
from apparate_jax.errors import DataError
from apparate_jax.models import from_function
from tests.data.pictures import raw_model, shades, write_pictures


def write_csv(path, names, labels=(1, 0, 1), header="image,label"):
    rows = "".join(f"{n},{y}\n" for n, y in zip(names, labels, strict=True))
    path.write_text(f"{header}\n{rows}")
    return path


@pytest.fixture
def names(tmp_path):
    write_pictures(tmp_path / "pictures", [5, 6, 7])
    return [f"pictures/{row}.png" for row in (2, 0, 1)]


def test_csv_of_paths_relative_to_it(tmp_path, names):
    data = load_data(write_csv(tmp_path / "a.csv", names), raw_model())
    assert shades(data) == [7, 5, 6] and data.labels.tolist() == [1, 0, 1]


def test_absolute_paths_and_a_limit(tmp_path, names):
    table = write_csv(tmp_path / "elsewhere.csv", [str(tmp_path / name) for name in names])
    data = load_data(table, raw_model(), limit=2)
    assert shades(data) == [7, 5] and data.labels.tolist() == [1, 0]


def test_json_lines_with_other_columns(tmp_path, names):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"file": n, "kind": i}) + "\n" for i, n in enumerate(names)))
    data = load_data(path, raw_model(), image_column="file", label_column="kind")
    assert shades(data) == [7, 5, 6] and data.labels.tolist() == [0, 1, 2]
    assert load_data(path, raw_model(), image_column="file").labels is None


def test_tables_that_do_not_fit(tmp_path, names):
    with pytest.raises(DataError, match=r"expected .image. among them .*--image-column"):
        load_data(write_csv(tmp_path / "a.csv", names, header="x,label"), raw_model())
    numbers = write_csv(tmp_path / "b.csv", [1, 2, 3])
    with pytest.raises(DataError, match=r"b.csv, row 0: 'image' is 1, expected a path"):
        load_data(numbers, raw_model())
    missing = write_csv(tmp_path / "c.csv", [*names[:2], "pictures/9.png"])
    with pytest.raises(DataError, match=r"row 2 \(pictures/9.png\): No such file"):
        load_data(missing, raw_model()).rows(0, 3)


def test_a_model_without_preprocessing_is_told_so(tmp_path, names):
    model = from_function(lambda p, x: x, {}, inputs=[InputSpec("image", (8, 8, 3), "float32")])
    with pytest.raises(DataError, match="image=ImagePreprocess"):
        load_data(write_csv(tmp_path / "a.csv", names), model)
