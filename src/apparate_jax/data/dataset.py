"""A data set in memory: one array per model input, in the model's order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.errors import DataError


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples that fit a model.

    Attributes:
        name: For people, the file's name.
        inputs: Arrays ``[count, ...]`` in the order of the model's inputs.
        labels: i64[count], or None when the file has none.
    """

    name: str
    inputs: tuple[NDArray[Any], ...]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def __getitem__(self, rows: slice) -> "Dataset":
        labels = None if self.labels is None else self.labels[rows]
        return Dataset(self.name, tuple(x[rows] for x in self.inputs), labels)

    def example(self, row: int, model: Model) -> dict[str, NDArray[Any]]:
        """One example by input name, without the batch axis."""
        return {
            spec.name: values[row] for spec, values in zip(model.inputs, self.inputs, strict=True)
        }


def fit(name: str, arrays: dict[str, NDArray[Any]], model: Model) -> tuple[NDArray[Any], ...]:
    """Arrays in the model's order, with its shapes and dtypes.

    Raises:
        DataError: A missing input, another shape, or values that the dtype cannot hold.
    """
    fitted = []
    for spec in model.inputs:
        if spec.name not in arrays:
            raise DataError(
                f"{name} has {sorted(arrays)}, expected the model's inputs "
                f"{[s.name for s in model.inputs]}"
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
    target = np.dtype(dtype)
    if values.dtype == target:
        return values
    whole = np.issubdtype(target, np.integer) and np.issubdtype(values.dtype, np.integer)
    floats = np.issubdtype(target, np.floating) and values.dtype.kind in "fiu"
    fits = whole and (values == values.astype(target)).all()
    if not (fits or floats):
        raise DataError(
            f"{file}: {name} is {values.dtype}, expected {target} (or values that it can hold)"
        )
    return values.astype(target)
