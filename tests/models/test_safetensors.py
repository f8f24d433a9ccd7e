"""Reading safetensors: one file or shards, damage of every kind, and what differs all at once."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import save_file

from apparate_jax.errors import WeightsError
from apparate_jax.models.safetensors import check, read_directory, read_tensors
from tests.models import bert_directory

TENSORS = {
    "a": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
    "b": jnp.asarray([1.5, -2.0], jnp.bfloat16),
    "empty": jnp.zeros((0, 4), jnp.int32),
}


@pytest.fixture
def file(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_names_shapes_types_and_values(file):
    found = read_tensors(file)
    assert sorted(found) == sorted(TENSORS)
    for name, value in TENSORS.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)
    assert sorted(read_directory(file.parent)) == sorted(TENSORS)


def test_every_truncation_is_an_error(file):
    raw = file.read_bytes()
    for size in sorted({*range(0, len(raw), 7), len(raw) - 1}):
        file.write_bytes(raw[:size])
        with pytest.raises(WeightsError, match=rf"damaged or truncated \({size} bytes"):
            read_tensors(file)


@pytest.mark.parametrize("content", [b"\xff" * 200, b"{}", b"PK\x03\x04" + b"\0" * 60])
def test_files_of_something_else(file, content):
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="copy or download it again"):
        read_tensors(file)


def test_no_file(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights at .*: expected a safetensors file"):
        read_tensors(tmp_path / "absent")
    with pytest.raises(WeightsError, match="no weights at"):
        read_directory(tmp_path)


def test_shards_are_the_whole(tmp_path):
    whole = read_directory(bert_directory.write(tmp_path / "whole"))
    parts = read_directory(bert_directory.write_shards(tmp_path / "parts"))
    assert sorted(parts) == sorted(whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)


def test_a_shard_that_is_missing_or_damaged_is_named(tmp_path):
    root = bert_directory.write_shards(tmp_path / "parts")
    second = root / "model-00002-of-00003.safetensors"
    raw = second.read_bytes()
    second.write_bytes(raw[:-1])
    with pytest.raises(WeightsError, match=r"model-00002-of-00003\.safetensors is damaged"):
        read_directory(root)
    second.unlink()
    with pytest.raises(WeightsError, match=r"no weights at .*model-00002-of-00003\.safetensors"):
        read_directory(root)


@pytest.mark.parametrize(
    "index", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '"x"']
)
def test_an_index_that_is_none(file, index):
    (file.parent / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match="is no index of shards"):
        read_directory(file.parent)


def test_an_index_leads_nowhere_outside(tmp_path, file):
    inside = tmp_path / "inside"
    inside.mkdir()
    index = {"weight_map": {"a": "../model.safetensors"}}
    (inside / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"no weights at .*inside/model\.safetensors"):
        read_directory(inside)


def test_all_differences_at_once():
    wanted = {"a": (2, 3), "b": (4,), "c": ()}
    found = {"a": np.zeros((3, 2)), "c": np.zeros(()), "d": np.zeros(5), "x.position_ids": 1}
    with pytest.raises(WeightsError) as raised:
        check(wanted, found, Path("here"), ignored=("position_ids",))
    assert str(raised.value) == (
        "the weights in here do not fit the model: missing b [4]; a is [3, 2], expected [2, 3]; "
        "unexpected d [5]. Nothing loaded"
    )
    check({"a": (2,)}, {"a": np.zeros(2)}, Path("here"))


def test_long_lists_are_cut():
    wanted = {f"layer.{i}": (1,) for i in range(30)}
    with pytest.raises(WeightsError, match=r"missing layer\.11 \[1\]; and 18 more\. Nothing"):
        check(wanted, {}, Path("here"))
