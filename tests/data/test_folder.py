import numpy as np
import pytest

from apparate_jax.data import load_data
from apparate_jax.errors import DataError
from tests.data.pictures import encoded, flat, image_model, raw_model, shades, write_pictures


def classes(root, **counts):
    for at, (name, count) in enumerate(counts.items()):
        write_pictures(root / name, [50 * at + row for row in range(count)])
    return root


def test_classes_are_numbered_by_name_and_take_turns(tmp_path):
    root = classes(tmp_path / "pets", dog=2, ant=3, cat=1)
    data = load_data(root, raw_model())
    assert (data.name, len(data)) == ("pets", 6)
    # ant is 0 (shades 50..), cat is 1 (100..), dog is 2 (0..); one of each in turn
    assert data.labels.tolist() == [0, 1, 2, 0, 2, 0]
    assert shades(data) == [50, 100, 0, 51, 1, 52]


def test_class_names_of_the_model_number_them(tmp_path):
    root = classes(tmp_path, ant=1, dog=1)
    model = raw_model(labels=("dog", "cat", "ant"))
    assert load_data(root, model).labels.tolist() == [2, 0]
    unknown = raw_model(labels=("dog", "cat"))
    assert load_data(root, unknown).labels.tolist() == [0, 1]


def test_pictures_without_classes_have_no_labels(tmp_path):
    write_pictures(tmp_path, [9, 8, 7])
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    data = load_data(tmp_path, raw_model())
    assert data.labels is None and shades(data) == [9, 8, 7]


def test_pictures_deeper_in_a_class_folder(tmp_path):
    write_pictures(tmp_path / "a" / "2024" / "may", [1])
    write_pictures(tmp_path / "b", [2])
    data = load_data(tmp_path, raw_model())
    assert shades(data) == [1, 2] and data.labels.tolist() == [0, 1]


def test_limit_and_rows_and_examples(tmp_path):
    model = raw_model()
    data = load_data(write_pictures(tmp_path, range(10)), model, limit=5)
    assert len(data) == 5 and shades(data) == [0, 1, 2, 3, 4]
    assert shades(data, 3, 9) == [3, 4]
    (nothing,) = data.rows(2, 2)
    assert nothing.shape == (0, 8, 8, 3)
    example = data.example(4, model)
    assert list(example) == ["image"] and example["image"].shape == (8, 8, 3)
    np.testing.assert_array_equal(example["image"], flat(4))


def test_labels_follow_the_limit(tmp_path):
    data = load_data(classes(tmp_path, a=3, b=3), raw_model(), limit=3)
    assert data.labels.tolist() == [0, 1, 0]


def test_nothing_is_kept_in_memory(tmp_path):
    data = load_data(write_pictures(tmp_path, range(6)), raw_model())
    (tmp_path / "3.png").write_bytes(encoded(flat(33)))
    assert shades(data, 3, 4) == [33]


def test_a_damaged_picture_is_named(tmp_path):
    root = classes(tmp_path / "pets", cat=3)
    path = root / "cat" / "2.png"
    path.write_bytes(path.read_bytes()[:40])
    data = load_data(root, raw_model())
    assert shades(data, 0, 2) == [0, 1]
    with pytest.raises(DataError, match=r"pets, row 2 \(cat/2.png\): no picture"):
        data.rows(0, 3)


def test_the_first_picture_is_looked_at_when_loading(tmp_path):
    write_pictures(tmp_path, [1, 2])
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"row 0 \(0.png\)"):
        load_data(tmp_path, raw_model())


def test_a_picture_that_is_gone(tmp_path):
    data = load_data(write_pictures(tmp_path, [1, 2]), raw_model())
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"row 1 \(1.png\): No such file"):
        data.rows(1, 2)


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match=r"no pictures in .*\.jpg"):
        load_data(tmp_path, raw_model())
    write_pictures(tmp_path / "a", [1])
    write_pictures(tmp_path, [1])
    with pytest.raises(DataError, match="1 pictures beside the folders"):
        load_data(tmp_path, raw_model())


def test_a_model_that_takes_no_pictures(tmp_path):
    write_pictures(tmp_path, [1])
    model = image_model(shape=(5,))
    with pytest.raises(DataError, match="expected one input of shape"):
        load_data(tmp_path, model)
