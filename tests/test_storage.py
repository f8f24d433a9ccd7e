import shutil

import ml_dtypes
import numpy as np
import pytest

from apparate_jax.storage import (
    left_behind,
    link_files,
    new_directory,
    read_arrays,
    write_arrays,
)


@pytest.mark.parametrize(
    "dtype",
    [np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8, np.uint32, bool],
)
def test_arrays_come_back_as_they_were(tmp_path, dtype):
    arrays = {"a": np.arange(12).reshape(3, 4).astype(dtype), "b": np.asarray(1, dtype)}
    write_arrays(tmp_path / "item", arrays)
    found = read_arrays(tmp_path / "item")
    assert sorted(found) == ["a", "b"]
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_arrays_without_elements_are_left_out(tmp_path):
    write_arrays(tmp_path / "some", {"a": np.zeros((0, 3)), "b": np.ones(2)})
    assert list(read_arrays(tmp_path / "some")) == ["b"]
    write_arrays(tmp_path / "none", {"a": np.zeros((0, 3))})
    assert read_arrays(tmp_path / "none") == {}


def test_a_directory_is_replaced_whole(tmp_path):
    target = tmp_path / "deep" / "place"
    for content in ("first", "second"):
        with new_directory(target) as made:
            (made / content).write_text(content)
            assert not (target / content).exists()
        assert [path.name for path in target.iterdir()] == [content]
        assert [path.name for path in target.parent.iterdir()] == ["place"]
    assert left_behind(target) is None


def test_a_failed_replacement_changes_nothing(tmp_path):
    target = tmp_path / "place"
    with new_directory(target) as made:
        (made / "old").write_text("old")
    with pytest.raises(KeyError), new_directory(target) as made:
        (made / "new").write_text("new")
        raise KeyError("in the middle")
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_what_an_interrupted_replacement_left_is_found(tmp_path):
    (tmp_path / ".place.old.7-ab").mkdir()
    (tmp_path / ".other.old.7-ab").mkdir()
    assert left_behind(tmp_path / "place") == tmp_path / ".place.old.7-ab"


def test_arrays_are_written_in_parts_of_limited_size(tmp_path, monkeypatch):
    monkeypatch.setattr("apparate_jax.storage.PART_BYTES", 100)
    shapes = [(20,), (5,), (1,), (40,), (3, 2), (0, 4), (2,), (1, 50), (7, 3, 4), ()]
    arrays = {
        f"{i}-{i}": np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        for i, shape in enumerate(shapes)
    }
    write_arrays(tmp_path / "item", arrays)
    parts = sorted(path.name for path in (tmp_path / "item").iterdir())
    assert [name for name in parts if "-" in name] == [
        "0001-0-40", "0002-25-40", "0004-0-7", "0005-2-7", "0006-4-7", "0007-6-7",
    ]  # fmt: skip
    found = read_arrays(tmp_path / "item")
    assert sorted(found) == sorted(name for name in arrays if name != "5-5")
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


@pytest.mark.parametrize("links", [True, False])
def test_linked_files_outlive_their_first_directory(tmp_path, monkeypatch, links):
    (tmp_path / "old" / "deep").mkdir(parents=True)
    (tmp_path / "old" / "deep" / "file").write_text("content")
    if not links:

        def refuse(*_):
            raise OSError("no links here")

        monkeypatch.setattr("os.link", refuse)
    link_files(tmp_path / "old", tmp_path / "new")
    shutil.rmtree(tmp_path / "old")
    assert (tmp_path / "new" / "deep" / "file").read_text() == "content"
    link_files(tmp_path / "old", tmp_path / "none")
    assert not (tmp_path / "none").exists()
