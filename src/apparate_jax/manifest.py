"""The manifest of a directory: what is in it, and proof that nothing changed since.

``manifest.json`` lists every other file with its size and SHA-256 and carries a checksum of itself.
It is written last, so a directory without one was never finished. Reading compares every listed
file before anything is made of the content; files that are not listed are never read.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from apparate_jax.errors import CheckpointError

FORMAT = 2
MANIFEST = "manifest.json"

_AGAIN = "make it again with apparate inject and train-ramps"


def as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content as JSON keeps it: lists for tuples, text for keys.

    Raises:
        CheckpointError: Something in it is no JSON value.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(content))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot write the manifest ({error}): the model's source and the facts about the "
            "training must be JSON values (text, numbers, lists, objects)"
        ) from error
    return plain


def write_manifest(root: Path, content: Mapping[str, Any]) -> None:
    """Finish a directory: everything in it is on the disk before the manifest is.

    Args:
        root: Directory with all its files.
        content: JSON values; ``format``, ``files`` and ``checksum`` are added.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file())
    listed = {path.relative_to(root).as_posix(): _fingerprint(path) for path in files}
    for path in (*files, *(p for p in root.rglob("*") if p.is_dir())):
        sync(path)
    plain = as_json({"format": FORMAT, **content, "files": listed})
    partial = root / f"{MANIFEST}.partial"
    partial.write_bytes(_render({**plain, "checksum": _checksum(plain)}))
    sync(partial)
    partial.rename(root / MANIFEST)
    sync(root)


def read_manifest(root: Path) -> dict[str, Any]:
    """The content of a directory that is whole.

    Raises:
        CheckpointError: Absent, interrupted, of another format, or damaged; says which file.
    """
    content = _read(root)
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"the checkpoint {root} has format {content['format']!r}, this version of apparate-jax "
            f"reads format {FORMAT}: {_AGAIN}, or use the version that wrote it "
            f"({content.get('apparate_jax', 'unknown')})"
        )
    plain = {name: value for name, value in content.items() if name != "checksum"}
    if content.get("checksum") != _checksum(plain):
        raise CheckpointError(f"{root / MANIFEST} is damaged or was edited: {_AGAIN}")
    for name, expected in content["files"].items():
        _verify(root, name, expected)
    return plain


def fingerprint(content: Mapping[str, Any]) -> str:
    """What tells the content of one manifest from that of another, with the files that it lists."""
    return _checksum(as_json(content))


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # Not every file system can do this for directories.
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)


def _read(root: Path) -> dict[str, Any]:
    path = root / MANIFEST
    if not root.is_dir():
        raise CheckpointError(f"no checkpoint at {root}: make one with apparate inject")
    if not path.is_file():
        raise CheckpointError(
            f"{root} holds no {MANIFEST}: it is no checkpoint, or writing it was interrupted; "
            f"{_AGAIN}"
        )
    try:
        raw = path.read_bytes()
        content = json.loads(raw)
        whole = isinstance(content, dict) and "format" in content and _render(content) == raw
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): {_AGAIN}") from error
    if not whole:
        raise CheckpointError(f"{path} is damaged or was edited: {_AGAIN}")
    return dict(content)


def _render(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_render(content)).hexdigest()


def _verify(root: Path, name: str, expected: Mapping[str, Any]) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise CheckpointError(f"{root / MANIFEST} names {name!r}, a file outside: not read")
    path = root / relative
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {root} lacks {name}: {_AGAIN}")
    try:
        found = _fingerprint(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if found != expected:
        what = (
            "its content changed"
            if found["bytes"] == expected["bytes"]
            else f"it has {found['bytes']} bytes, expected {expected['bytes']}"
        )
        raise CheckpointError(f"{name} in the checkpoint {root} is damaged, {what}: {_AGAIN}")


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
