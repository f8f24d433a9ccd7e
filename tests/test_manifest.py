import hashlib
import json

import pytest

from apparate_jax.errors import CheckpointError
from apparate_jax.manifest import MANIFEST, as_json, read_manifest, write_manifest

CONTENT = {"name": "tiny, not empty: zürich", "sites": [[1, 0.25], [2, 1e-05]], "none": None}


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a.bin").write_bytes(bytes(range(40)))
    (tmp_path / "deep" / "er" / "b.bin").write_bytes(b"content")
    (tmp_path / "deep" / "empty").write_bytes(b"")
    write_manifest(tmp_path, CONTENT)
    return tmp_path


def resigned(directory, change):
    """Write the manifest with a change, as somebody who knows the checksum would."""
    path = directory / MANIFEST
    content = json.loads(path.read_text())
    content.pop("checksum")
    change(content)

    def render(value):
        return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()

    path.write_bytes(render({**content, "checksum": hashlib.sha256(render(content)).hexdigest()}))


def test_what_was_written_is_read(directory):
    content = read_manifest(directory)
    assert {name: content[name] for name in CONTENT} == CONTENT
    assert sorted(content["files"]) == ["a.bin", "deep/empty", "deep/er/b.bin"]
    assert content["files"]["a.bin"]["bytes"] == 40
    assert not list(directory.glob("*.partial"))


def test_every_flipped_bit_of_the_manifest_is_noticed(directory):
    path = directory / MANIFEST
    raw = path.read_bytes()
    for position in range(len(raw)):
        for bit in (position % 8, 5):
            path.write_bytes(
                raw[:position] + bytes([raw[position] ^ 1 << bit]) + raw[position + 1 :]
            )
            with pytest.raises(CheckpointError):
                read_manifest(directory)
    path.write_bytes(raw)
    read_manifest(directory)


def test_every_truncated_manifest_is_noticed(directory):
    path = directory / MANIFEST
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError):
            read_manifest(directory)


@pytest.mark.parametrize("name", ["a.bin", "deep/empty", "deep/er/b.bin"])
def test_damaged_files_are_named(directory, name):
    path = directory / name
    raw = path.read_bytes()
    path.write_bytes(raw + b"x")
    with pytest.raises(
        CheckpointError, match=f"{name} .*{len(raw) + 1} bytes, expected {len(raw)}"
    ):
        read_manifest(directory)
    if raw:
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 4]))
        with pytest.raises(CheckpointError, match=f"{name} .*its content changed"):
            read_manifest(directory)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        read_manifest(directory)


def test_absent_and_unfinished_directories(directory, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*apparate inject"):
        read_manifest(tmp_path / "elsewhere")
    (directory / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="interrupted"):
        read_manifest(directory)


@pytest.mark.parametrize("text", ["[1, 2]", "null", "{}", "[" * 100_000, "\0"])
def test_other_json_is_no_manifest(directory, text):
    (directory / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError):
        read_manifest(directory)


def test_another_format_is_named_before_anything_else(directory):
    resigned(directory, lambda content: content.update(format=99, apparate_jax="7.1"))
    (directory / "a.bin").unlink()
    with pytest.raises(CheckpointError, match=r"format 99, this version .*format 2.*7\.1"):
        read_manifest(directory)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "deep/../../outside"])
def test_files_outside_are_not_read(directory, name):
    outside = {name: {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}}
    (directory.parent / "outside").write_bytes(b"")
    resigned(directory, lambda content: content["files"].update(outside))
    with pytest.raises(CheckpointError, match="outside: not read"):
        read_manifest(directory)


def test_only_json_values_can_be_written():
    assert as_json({"a": (1, 2)}) == {"a": [1, 2]}
    with pytest.raises(CheckpointError, match="JSON values"):
        as_json({"a": {1, 2}})
