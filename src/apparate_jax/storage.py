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


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write named arrays as one Orbax item; those without elements are left out."""
    kept = {name: array for name, array in arrays.items() if array.size}
    if kept:
        with _checkpointer() as checkpointer:
            checkpointer.save(path, kept)


def read_arrays(path: Path) -> Arrays:
    """The named arrays of an item, in host memory; none if nothing was written."""
    if not path.exists():
        return {}
    with _checkpointer() as checkpointer:
        return dict(checkpointer.restore(path))


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
