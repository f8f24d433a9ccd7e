"""Where pooled features are kept: in memory, or in a file that is mapped into it.

A file lies in a temporary directory of its own below the one that was asked for and goes with it,
also when something fails. Its space is taken at once: a disk that fills up later would end the
process without a word.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import RampError

Announce = Callable[[str], None]
"""Told a line for people, such as how large the cache is before it is filled."""

_MIB = 2**20


class CacheSize(NamedTuple):
    """How large a cache of features is.

    Attributes:
        samples: Rows.
        numbers: Columns: the widths of all pooled values, and the classes.
    """

    samples: int
    numbers: int

    @property
    def num_bytes(self) -> int:
        """Size in float32."""
        return 4 * self.samples * self.numbers

    def __str__(self) -> str:
        return f"{self.samples:,} samples x {self.numbers:,} numbers, {_mib(self.num_bytes)}"


def _mib(num_bytes: int) -> str:
    return (
        f"{num_bytes / _MIB:,.0f} MiB" if num_bytes >= 10 * _MIB else f"{num_bytes / _MIB:.1f} MiB"
    )


@contextmanager
def feature_cache(
    size: CacheSize,
    *,
    max_bytes: int,
    directory: str | Path | None = None,
    announce: Announce | None = None,
) -> Iterator[NDArray[np.float32]]:
    """An uninitialised table f32[samples, numbers], for as long as the ``with`` block lasts.

    Args:
        size: Of the table.
        max_bytes: What it may take in memory at most; a file may be larger.
        directory: Below which a file is made; None for memory.
        announce: Told the size before anything is allocated.

    Raises:
        RampError: More than ``max_bytes``, or no space or permission for the file.
    """
    where = "in memory" if directory is None else f"on disk in {directory}"
    if announce is not None:
        announce(f"feature cache: {size} {where}")
    if directory is None:
        if size.num_bytes > max_bytes:
            raise RampError(
                f"the feature cache of {size} is larger than the {_mib(max_bytes)} that are "
                "allowed (max_cache_bytes): keep it on disk (cache_dir, --cache-dir), use a "
                "smaller share of the data (data_frac, --data-frac), or allow more"
            )
        yield np.empty(size, np.float32)
        return
    with _temporary(Path(directory), size) as folder:
        path = folder / "features.f32"
        _reserve(path, size)
        table = np.memmap(path, np.float32, "r+", shape=tuple(size))
        try:
            # A plain view: slices of a memmap are memmaps, which cost more to make.
            yield table.view(np.ndarray)
        finally:
            del table


@contextmanager
def _temporary(root: Path, size: CacheSize) -> Iterator[Path]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="apparate-features-", dir=root)
    except OSError as error:
        raise RampError(
            f"cannot keep the feature cache of {size} in {root}: {error.strerror or error}: name "
            "another directory (cache_dir, --cache-dir)"
        ) from error
    with folder as name:
        yield Path(name)


def _reserve(path: Path, size: CacheSize) -> None:
    """Make the file with all of its space.

    Raises:
        RampError: The disk has not that much.
    """
    free = shutil.disk_usage(path.parent).free
    try:
        if size.num_bytes > free:
            raise OSError(0, f"{_mib(free)} are free")
        with path.open("wb") as file:
            file.truncate(size.num_bytes)
            if sys.platform == "linux":
                os.posix_fallocate(file.fileno(), 0, size.num_bytes)
    except OSError as error:
        raise RampError(
            f"no space for the feature cache of {size} in {path.parent.parent} "
            f"({error.strerror or error}): name another directory (cache_dir, --cache-dir), or use "
            "a smaller share of the data (data_frac, --data-frac)"
        ) from error
