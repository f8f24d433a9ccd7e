"""A folder of pictures: one folder per class, or pictures without labels.

Class folders are sorted by name and numbered from 0, unless every name is one of the model's own
class names: then they have the model's numbers. Pictures are in the order of their paths; in a
folder per class that means all of a class together, so ``--data-frac`` below 1 would leave classes
out: rows are interleaved, one of each class in turn.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.data.image import SUFFIXES, ImageDataset, ImageEncoder
from apparate_jax.errors import DataError


class Files:
    """Pictures in files of their own."""

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        """Name the files.

        Args:
            root: What messages name them relative to.
            paths: In the order of rows.
        """
        self._root = root
        self._paths = tuple(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, start: int, stop: int) -> list[bytes]:
        """Contents of the files ``start`` to ``stop``.

        Raises:
            DataError: One is missing or unreadable.
        """
        return [self._read(row) for row in range(start, min(stop, len(self)))]

    def _read(self, row: int) -> bytes:
        try:
            return self._paths[row].read_bytes()
        except OSError as error:
            raise DataError(f"{self.place(row)}: {error.strerror or error}") from error

    def place(self, row: int) -> str:
        """``row 3 (cats/1.png)``."""
        path = self._paths[row]
        shown = path.relative_to(self._root) if path.is_relative_to(self._root) else path
        return f"row {row} ({shown.as_posix()})"


def load_folder(root: Path, model: Model, *, limit: int | None = None) -> ImageDataset:
    """Pictures of a folder, with labels if they are in folders per class.

    Args:
        root: The folder.
        model: How it takes pictures.
        limit: Use at most this many.

    Raises:
        DataError: No pictures, pictures beside class folders, or a model that takes none.
    """
    encoder = ImageEncoder(model)
    loose = _pictures(root, deep=False)
    classes = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."]
    by_class = {path.name: found for path in classes if (found := _pictures(path, deep=True))}
    if loose and by_class:
        raise DataError(
            f"{root} has {len(loose)} pictures beside the folders {list(by_class)[:4]}: expected "
            "either pictures, or a folder per class"
        )
    if not loose and not by_class:
        raise DataError(f"no pictures in {root}, expected files ending in {', '.join(SUFFIXES)}")
    if loose:
        return ImageDataset(root.name, Files(root, loose[:limit]), encoder)
    paths, labels = _interleaved(by_class, model)
    return ImageDataset(root.name, Files(root, paths[:limit]), encoder, labels[:limit])


def _pictures(folder: Path, *, deep: bool) -> list[Path]:
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()
    )


def _interleaved(
    by_class: dict[str, list[Path]], model: Model
) -> tuple[list[Path], NDArray[np.int64]]:
    """One picture of each class in turn, and their labels."""
    known = set(by_class) <= set(model.labels)
    numbers = [model.labels.index(n) if known else i for i, n in enumerate(by_class)]
    columns = [
        [(path, number) for path in paths]
        for number, paths in zip(numbers, by_class.values(), strict=True)
    ]
    turns = itertools.zip_longest(*columns)
    pairs = [pair for turn in turns for pair in turn if pair is not None]
    return [path for path, _ in pairs], np.asarray([number for _, number in pairs], np.int64)
