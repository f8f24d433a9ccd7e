import ml_dtypes
import numpy as np
import pytest

from apparate_jax.storage import left_behind, new_directory, read_arrays, write_arrays


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
