"""Inputs for the live benchmark, ready before they are due.

Pictures and video frames are decoded while the benchmark runs: a thread reads a bounded number of
rows ahead, so that a request is sent when it is due and not when its frame is decoded. While
throughput is measured nothing is decoded: as many rows as fit in :data:`HELD_BYTES` are sent in a
circle.
"""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.data.ahead import ahead
from apparate_jax.data.dataset import Circle, Dataset, Rows, named
from apparate_jax.errors import DataError

Example = dict[str, NDArray[Any]]

HELD_BYTES = 64 * 2**20
"""Memory for the rows that are sent while throughput is measured."""

_CHUNK = 16
_CHUNKS_AHEAD = 2


def feed(data: Dataset, model: Model, first: int, count: int) -> Iterator[Example]:
    """``count`` examples from row ``first`` on, from the start again at the end of the data.

    Args:
        data: Inputs.
        model: Names them.
        first: Row to begin with, modulo the number of rows.
        count: How many.
    """
    circle = Circle(data, first, count)

    def read(start: int) -> Rows:
        return circle.rows(start, start + _CHUNK)

    for arrays in ahead(read, range(0, count, _CHUNK), _CHUNKS_AHEAD):
        for row in range(len(arrays[0])):
            yield _example(model, arrays, row)


class Held:
    """Rows that are ready in memory, sent in a circle."""

    def __init__(self, data: Dataset, model: Model) -> None:
        """Read the first rows of the data, as many as fit.

        Args:
            data: Inputs.
            model: Names them.

        Raises:
            DataError: There are none.
        """
        if len(data) == 0:
            raise DataError(f"{data.name} has no rows")
        each = sum(values.nbytes for values in data.rows(0, 1))
        self._model = model
        self._count = min(len(data), max(1, HELD_BYTES // max(1, each)))
        self._arrays = data.rows(0, self._count)

    def __getitem__(self, position: int) -> Example:
        """The example at a position of the circle."""
        return _example(self._model, self._arrays, position % self._count)


def _example(model: Model, arrays: Rows, row: int) -> Example:
    return named(model, tuple(values[row] for values in arrays))
