"""What a data set is to the rest: rows that are read when they are needed.

:class:`Dataset` is the interface. :class:`ArrayDataset` holds everything in memory (token ids,
``.npz``); images and videos are decoded row by row (:mod:`apparate_jax.data.image`,
:mod:`apparate_jax.data.video`), so memory stays flat however long they are.

Sharp edges: a data set that decodes keeps its place, so one thread at a time reads it, and reading
in order is much quicker than jumping.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.errors import DataError

Rows = tuple[NDArray[Any], ...]
"""Arrays ``[count, ...]``, one per model input in the model's order."""


class Dataset(Protocol):
    """Examples that fit a model."""

    @property
    def name(self) -> str:
        """For people, the file's name."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """i64[count], or None when there are none."""

    def __len__(self) -> int:
        """How many examples there are."""

    def rows(self, start: int, stop: int) -> Rows:
        """Examples ``start`` to ``stop`` (exclusive): ``[stop - start, ...]`` per model input.

        Raises:
            DataError: A row that cannot be decoded; names the file and the row.
        """

    def example(self, row: int, model: Model) -> dict[str, NDArray[Any]]:
        """One example by input name, without the batch axis."""


@dataclass(frozen=True, slots=True)
class ArrayDataset:
    """A data set in memory.

    Attributes:
        name: For people, the file's name.
        inputs: Arrays ``[count, ...]`` in the order of the model's inputs.
        labels: i64[count], or None when the file has none.
    """

    name: str
    inputs: Rows
    labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        counts = [len(values) for values in self.inputs]
        if len(set(counts)) > 1:
            raise DataError(f"{self.name}: the inputs have {counts} rows, expected equally many")

    def __len__(self) -> int:
        return len(self.inputs[0]) if self.inputs else 0

    def __getitem__(self, rows: slice) -> "ArrayDataset":
        labels = None if self.labels is None else self.labels[rows]
        return ArrayDataset(self.name, tuple(x[rows] for x in self.inputs), labels)

    def rows(self, start: int, stop: int) -> Rows:
        """Views of the rows ``start`` to ``stop``."""
        return tuple(values[start:stop] for values in self.inputs)

    def example(self, row: int, model: Model) -> dict[str, NDArray[Any]]:
        """One example by input name, without the batch axis."""
        return named(model, tuple(values[row] for values in self.inputs))


@dataclass(frozen=True, slots=True)
class Circle:
    """``count`` examples of a data set from row ``first`` on, from its start again at its end.

    Attributes:
        data: Whose rows they are.
        first: Where they begin.
        count: How many.
    """

    data: Dataset
    first: int
    count: int

    @property
    def name(self) -> str:
        """The data set's name."""
        return self.data.name

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """i64[count], or None."""
        labels = self.data.labels
        return None if labels is None else np.take(labels, self._all(), mode="wrap")

    def __len__(self) -> int:
        return self.count

    def rows(self, start: int, stop: int) -> Rows:
        """Examples ``start`` to ``stop`` of the circle."""
        stop = min(stop, self.count)
        parts = []
        while start < stop:
            begin = (self.first + start) % len(self.data)
            end = min(begin + stop - start, len(self.data))
            parts.append(self.data.rows(begin, end))
            start += end - begin
        return parts[0] if len(parts) == 1 else _joined(parts or [self.data.rows(0, 0)])

    def example(self, row: int, model: Model) -> dict[str, NDArray[Any]]:
        """One example by input name, without the batch axis."""
        return self.data.example((self.first + row) % len(self.data), model)

    def _all(self) -> NDArray[np.int64]:
        return self.first + np.arange(self.count)


def _joined(parts: Sequence[Rows]) -> Rows:
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def named(model: Model, values: Rows) -> dict[str, NDArray[Any]]:
    """Arrays in the model's order by the names of its inputs."""
    return {spec.name: value for spec, value in zip(model.inputs, values, strict=True)}


def fit(name: str, arrays: dict[str, NDArray[Any]], model: Model) -> Rows:
    """Arrays in the model's order, with its shapes and dtypes.

    Raises:
        DataError: A missing input, another shape, or values that the dtype cannot hold.
    """
    fitted = []
    for spec in model.inputs:
        if spec.name not in arrays:
            raise DataError(
                f"{name} has {sorted(arrays)}, expected the model's inputs "
                f"{[s.name for s in model.inputs]}: an array of each name"
            )
        values = arrays[spec.name]
        if values.shape[1:] != spec.shape:
            raise DataError(
                f"{name}: {spec.name} is {list(values.shape)}, expected [count, "
                f"{', '.join(map(str, spec.shape))}]"
            )
        fitted.append(_cast(name, spec.name, values, spec.dtype))
    counts = {len(values) for values in fitted}
    if len(counts) != 1 or 0 in counts:
        raise DataError(
            f"{name}: the inputs have {[len(v) for v in fitted]} rows, expected equal and not 0"
        )
    return tuple(fitted)


def _cast(file: str, name: str, values: NDArray[Any], dtype: str) -> NDArray[Any]:
    target = jax.numpy.dtype(dtype)
    if values.dtype == target:
        return values
    whole = np.issubdtype(target, np.integer) and np.issubdtype(values.dtype, np.integer)
    real = jax.numpy.issubdtype(target, np.floating) and values.dtype.kind in "fiu"
    if whole or real:
        with np.errstate(over="ignore"):
            cast: NDArray[Any] = values.astype(target)
        kept = values == cast if whole else np.isfinite(values) == np.isfinite(cast)
        if kept.all():
            return cast
    raise DataError(
        f"{file}: {name} is {values.dtype}, expected {target} (or values that it can hold)"
    )


def class_indices(
    name: str, values: Sequence[Any] | None, model: Model
) -> NDArray[np.int64] | None:
    """Labels as class indices: numbers, or the model's class names.

    Raises:
        DataError: Something else.
    """
    if values is None:
        return None
    by_name = {label: i for i, label in enumerate(model.labels)}
    try:
        return np.asarray([by_name[v] if v in by_name else int(v) for v in values], np.int64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name}: labels must be class numbers or one of {list(model.labels)}: {error}; they "
            "are not needed, another name for their column leaves them out (--label-column none)"
        ) from error
