import io
import pickle
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.errors import WeightsError
from apparate_jax.models.torch_file import read_torch
from tests.models import torch_files as tf

ARRAYS = {
    f"{np.dtype(dtype).name}": np.arange(6).reshape(2, 3).astype(dtype) for dtype in tf.STORAGES
} | {"scalar": np.asarray(7), "empty": np.zeros((0, 4), np.float32)}
SIX = tf.storage("0", "FloatStorage", 6)
SIX_DATA = {"0": (6, np.arange(6, dtype=np.float32).tobytes())}


@pytest.fixture(params=tf.FORMATS)
def form(request):
    return request.param


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_torch(path)

    return read


@pytest.fixture
def read_value(read, form):
    """Read a file of this pickled value, with a storage of six numbers."""
    return lambda value: read(tf.pack(value, SIX_DATA, form))


def test_every_dtype(read, form):
    found = read(tf.state_dict(ARRAYS, form))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert found["bfloat16"].dtype == jnp.bfloat16


def test_strides_and_shared_storages(read_value):
    windows = {
        "rows": tf.tensor(SIX, (2, 3), (3, 1)),
        "columns": tf.tensor(SIX, (3, 2), (1, 3)),
        "last": tf.tensor(SIX, (2,), (1,), offset=4),
    }
    found = read_value(tf.ordered(windows))
    whole = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(found["rows"], whole)
    np.testing.assert_array_equal(found["columns"], whole.T)
    np.testing.assert_array_equal(found["last"], [4, 5])
    assert np.shares_memory(found["rows"], found["last"])


def test_parameters_and_what_stands_beside_the_state_dict(read_value):
    wrapped = tf.call(
        tf.name("torch._utils", "_rebuild_parameter"), tf.tensor(SIX, (6,), (1,)), b"\x88", b"N"
    )
    saved = {"epoch": tf.integer(3), "state_dict": tf.ordered({"weight": wrapped})}
    assert list(read_value(tf.dictionary(saved))) == ["weight"]
    assert list(read_value(tf.dictionary({"model": tf.dictionary(saved)}))) == ["weight"]


def test_unused_storages_of_the_old_format_are_skipped(read):
    tensors, data = tf.pickled({"a": np.ones(3, np.float32), "b": np.arange(4)})
    saved = {
        "optimizer": tf.dictionary({"a": tensors["a"]}),
        "model": tf.ordered({"b": tensors["b"]}),
    }
    found = read(tf.pack(tf.dictionary(saved), data, tf.OLD))
    np.testing.assert_array_equal(found["b"], np.arange(4))


class Command:
    """What a real attacker's pickle is made of."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickled_call_is_refused_and_not_made(read, form, tmp_path):
    target = tmp_path / "owned"
    call = tf.call(tf.name("os", "system"), tf.text(f"touch {target}"))
    value = tf.ordered({"weight": tf.tensor(SIX, (6,), (1,)), "extra": call})
    # The attack works on an unrestricted reader, so the test can fail.
    pickle.loads(tf.program(call))
    assert target.exists()
    target.unlink()
    with pytest.raises(WeightsError, match=r"refers to os\.system"):
        read(tf.pack(value, SIX_DATA, form))
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_of_every_protocol_are_refused(read, form, tmp_path, protocol):
    payload = pickle.dumps(Command(tmp_path / "owned"), protocol)
    if form == tf.NEW:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
        content = file.getvalue()
    else:
        content = payload
    with pytest.raises(WeightsError, match="does not need"):
        read(content)
    assert not (tmp_path / "owned").exists()


EVIL = tf.text("import os")
ORDERED = tf.name("collections", "OrderedDict")
MALICIOUS = {
    "eval": (tf.call(tf.name("builtins", "eval"), EVIL), "builtins.eval"),
    "stack global": (tf.text("builtins") + tf.text("exec") + b"\x93", "builtins.exec"),
    "getattr": (tf.name("builtins", "getattr"), "builtins.getattr"),
    "dotted": (tf.name("collections", "OrderedDict.__init__"), "OrderedDict.__init__"),
    "nested load": (tf.name("torch.storage", "_load_from_bytes"), "_load_from_bytes"),
    "whole model": (tf.name("torchvision.models.resnet", "ResNet"), "resnet.ResNet"),
    "numpy": (tf.name("numpy.core.multiarray", "_reconstruct"), "_reconstruct"),
    "inst": (b"(" + EVIL + b"ios\nsystem\n", "os.system"),
    "inst of a known name": (b"(icollections\nOrderedDict\n", "INST"),
    "obj": (b"(" + ORDERED + EVIL + b"o", "OBJ"),
    "newobj": (ORDERED + b")\x81", "NEWOBJ"),
    "extension": (b"\x82\x01", "EXT1"),
    "outside": (tf.text("elsewhere") + b"Q", "elsewhere"),
    "state of a name": (ORDERED + tf.dictionary({"x": EVIL}) + b"b", "given a state"),
    "call of a type": (tf.call(tf.name("torch", "FloatStorage")), "type of storage is called"),
    "memo": (EVIL + b"r\xff\xff\xff\x7f", "numbers object 2147483647"),
    "no dtype": (tf.storage("9", "Size", 1), "unknown type"),
    "declared twice": (tf.storage("0", "HalfStorage", 6), "declared twice"),
    "no storage": (tf.tensor(EVIL, (1,), (1,)), "instead of a storage"),
    "state of a tensor": (
        tf.tensor(SIX, (6,), (1,)) + tf.dictionary({"shape": tf.integers([9])}) + b"b",
        "damaged",
    ),
}


@pytest.mark.parametrize("case", MALICIOUS)
def test_what_no_state_dict_needs_is_refused(read_value, case):
    value, message = MALICIOUS[case]
    with pytest.raises(WeightsError, match="Nothing loaded") as caught:
        read_value(tf.ordered({"weight": tf.tensor(SIX, (6,), (1,)), "extra": value}))
    assert message in str(caught.value)
    assert "state_dict" in str(caught.value)


def test_the_table_of_names_is_unchanged_by_a_file(read_value):
    evil = tf.ordered({"w": ORDERED + b"N" + tf.dictionary({"_call": EVIL}) + b"\x86b"})
    with pytest.raises(WeightsError, match="given a state"):
        read_value(evil)
    assert list(read_value(tf.ordered({"w": tf.tensor(SIX, (6,), (1,))}))) == ["w"]


HUGE = 10**18
WINDOWS = {
    "too long": ((7,), (1,), 0),
    "off the end": ((6,), (1,), 1),
    "strided out": ((2, 3), (4, 1), 0),
    "negative offset": ((1,), (1,), -1),
    "negative stride": ((2,), (-1,), 3),
    "negative shape": ((-1,), (1,), 0),
    "repeated for ever": ((HUGE,), (0,), 0),
    "huge": ((HUGE, HUGE), (1, 1), 0),
    "other rank": ((6,), (1, 1), 0),
    "too many axes": ((1,) * 100, (1,) * 100, 0),
    "huge and empty": ((0, HUGE, HUGE), (1, 1, 1), 0),
    "huge stride": ((1,), (10**30,), 0),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_windows_outside_of_their_storage_are_refused(read_value, case):
    shape, strides, offset = WINDOWS[case]
    with pytest.raises(WeightsError, match="Nothing loaded"):
        read_value(tf.ordered({"weight": tf.tensor(SIX, shape, strides, offset)}))


@pytest.mark.parametrize("count", [5, 7, HUGE])
def test_storages_of_another_size_are_refused(read, form, count):
    value = tf.ordered({"w": tf.tensor(tf.storage("0", "FloatStorage", count), (2,), (1,))})
    for stated in (6, count):
        with pytest.raises(WeightsError, match="declared"):
            read(tf.pack(value, {"0": (stated, SIX_DATA["0"][1])}, form))


def test_missing_storages_are_refused(read, form):
    value = tf.ordered({"w": tf.tensor(SIX, (6,), (1,))})
    with pytest.raises(WeightsError, match="storage"):
        read(tf.pack(value, {}, form))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tf.integer(3), "holds a int"),
        (tf.dictionary({"epoch": tf.integer(3)}), "'epoch'"),
        (tf.tensor(SIX, (6,), (1,)), "holds a TensorRef"),
    ],
)
def test_files_without_tensors_by_name_are_refused(read_value, value, message):
    with pytest.raises(WeightsError, match=message):
        read_value(value)


def test_a_dictionary_that_holds_itself_ends(read_value):
    with pytest.raises(WeightsError, match="no tensors by name"):
        read_value(b"}q\x00" + tf.text("state_dict") + b"h\x00s")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_truncated_files_are_refused(read, form, share):
    content = tf.state_dict(ARRAYS, form)
    with pytest.raises(WeightsError, match=r"truncated|damaged|no file of torch\.save"):
        read(content[: int(share * len(content))])


def test_damaged_files_are_refused_or_read_whole(read, form):
    content = bytearray(tf.state_dict(ARRAYS, form))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = content.copy()
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(256)
        try:
            assert all(isinstance(a, np.ndarray) for a in read(bytes(damaged)).values())
        except WeightsError:
            refused += 1
    assert refused > 100


def _zip(entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_zip({"readme": b"x"}), "without data.pkl"),
        (_zip({"a/data.pkl": b"N."}, zipfile.ZIP_DEFLATED), "compressed"),
        (_zip({"a/data.pkl": b"N.", "a/byteorder": b"big"}), "big-endian"),
        (pickle.dumps({"weight": 1}), "no file of torch.save"),
        (b"#!/bin/sh\n", "damaged"),
    ],
)
def test_other_files_are_refused(read, content, message):
    with pytest.raises(WeightsError, match=message):
        read(content)


def test_entries_that_share_bytes_are_refused(read):
    content = tf.state_dict({"a": np.zeros(4096, np.float32), "b": np.zeros(4096, np.float32)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        first, second = (archive.getinfo(f"archive/data/{i}") for i in range(2))
    # The directory's second entry points at the first one's bytes, and the second's are cut out.
    start, stop = second.header_offset, second.header_offset + 30 + len(second.filename) + 16384
    directory = content.rindex(b"PK\x01\x02", 0, content.rindex(b"archive/data/1"))
    moved = bytearray(content)
    moved[directory + 42 : directory + 46] = first.header_offset.to_bytes(4, "little")
    shorter = bytes(moved[:start] + moved[stop:])
    with pytest.raises(WeightsError):
        read(shorter)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights at .*nothing\.pt"):
        read_torch(tmp_path / "nothing.pt")
