"""Arrays on disk (Orbax items), and directories that are replaced whole or not at all.

A new directory is made beside its place and renamed when it is complete. Replacing takes two
renames: a crash between them leaves the old directory beside its place, under a name that
:func:`left_behind` finds; at no time is there neither.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from apparate_jax.manifest import sync

Arrays = dict[str, np.ndarray[Any, Any]]

PART_BYTES = 4 * 2**20
"""Size of an Orbax item, unless one array is larger."""


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write named arrays as Orbax items of limited size; those without elements are left out.

    Orbax copies and compresses a whole item in memory, which the parts bound. An array that is
    larger than a part is cut into rows: the item's directory says which and of how many.
    """
    path.mkdir()
    with _checkpointer() as checkpointer:
        for number, (rows, part) in enumerate(_parts(arrays)):
            checkpointer.save(path / f"{number:04d}{rows}", part)
            checkpointer.wait_until_finished()


def _parts(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Iterator[tuple[str, Arrays]]:
    """Parts, and the ending of their directory: ``-first-all`` for rows of one array."""
    part: Arrays = {}
    for name, array in arrays.items():
        if array.nbytes > PART_BYTES and array.ndim and len(array) > 1:
            step = max(1, len(array) * PART_BYTES // array.nbytes)
            for first in range(0, len(array), step):
                yield f"-{first}-{len(array)}", {name: array[first : first + step]}
            continue
        if part and sum(x.nbytes for x in part.values()) + array.nbytes > PART_BYTES:
            yield "", part
            part = {}
        if array.size:
            part[name] = array
    if part:
        yield "", part


def read_arrays(path: Path) -> Arrays:
    """The named arrays that were written, in host memory; none if nothing was."""
    return dict(stream_arrays(path))


def stream_arrays(path: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The same one by one: what the caller lets go of takes no memory."""
    if not path.exists():
        return
    whole = np.empty(0)
    with _checkpointer() as checkpointer:
        for part in sorted(path.iterdir()):
            arrays: Arrays = dict(checkpointer.restore(part))
            rows = part.name.split("-")[1:]
            while arrays:
                name, array = arrays.popitem()
                if not rows:
                    yield name, array
                    continue
                first, count = map(int, rows)
                if first == 0:
                    whole = np.empty((count, *array.shape[1:]), array.dtype)
                whole[first : first + len(array)] = array
                if first + len(array) == count:
                    yield name, whole


def link_files(source: Path, target: Path) -> None:
    """The files of a directory in another one, without a second copy where the disk can do that.

    Both have them: removing one directory leaves the other whole. Does nothing without a source.
    """
    if source.exists():
        shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copy2(source, target)


@contextlib.contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A directory to fill; at the end it takes the place of ``target``, or nothing changes.

    Args:
        target: Its place; what is there is removed once the new one is in place.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    made = _beside(target, "new")
    made.mkdir()
    try:
        yield made
        _swap(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def left_behind(target: Path) -> Path | None:
    """The old directory that an interrupted replacement left beside ``target``."""
    found = sorted(target.parent.glob(f".{target.name}.old.*"))
    return found[-1] if found else None


@contextlib.contextmanager
def _checkpointer() -> Iterator[Any]:
    checkpointer = ocp.StandardCheckpointer()
    try:
        yield checkpointer
        checkpointer.wait_until_finished()
    finally:
        checkpointer.close()


def _beside(target: Path, what: str) -> Path:
    return target.parent / f".{target.name}.{what}.{os.getpid()}-{secrets.token_hex(4)}"


def _swap(made: Path, target: Path) -> None:
    if not target.exists():
        made.rename(target)
        sync(target.parent)
        return
    old = _beside(target, "old")
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
