"""Load a data file for a model: text with its tokenizer, or arrays by input name."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.data.dataset import Dataset, fit
from apparate_jax.data.text import SUFFIXES, TextEncoder, read_table
from apparate_jax.errors import DataError


def load_data(
    path: str | Path,
    model: Model,
    *,
    text_column: str = "text",
    label_column: str = "label",
    limit: int | None = None,
) -> Dataset:
    """Load data that fits a model.

    Args:
        path: ``.csv``, ``.jsonl`` or ``.parquet`` with a text column, or ``.npz`` with an array
            per input of the model.
        model: Names, shapes and dtypes of inputs, and the tokenizer.
        text_column: Column of texts.
        label_column: Column (or array) of labels, read if it is there.
        limit: Use at most this many rows, from the first.

    Raises:
        DataError: The file is missing, unreadable, of an unknown kind, or does not fit the model.
    """
    file = Path(path)
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}, expected at least 1")
    if not file.is_file():
        raise DataError(f"no data file at {file}")
    if file.suffix == ".npz":
        return _load_arrays(file, model, label_column, limit)
    if file.suffix in SUFFIXES:
        return _load_text(file, model, text_column, label_column, limit)
    raise DataError(f"{file.name} ends in {file.suffix!r}, expected one of {[*SUFFIXES, '.npz']}")


def _load_text(
    file: Path, model: Model, text_column: str, label_column: str, limit: int | None
) -> Dataset:
    encode = TextEncoder(model)
    columns = read_table(file, [text_column], [label_column])
    texts = columns[text_column][:limit]
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{file.name}, row {row}: {text_column!r} is {text!r}, expected a text")
    inputs = fit(file.name, dict(encode(texts)), model)
    labels = _labels(file.name, columns.get(label_column), model)
    return Dataset(file.name, inputs, None if labels is None else labels[:limit])


def _load_arrays(file: Path, model: Model, label_column: str, limit: int | None) -> Dataset:
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name][:limit] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    values = arrays.pop(label_column, None)
    inputs = fit(file.name, arrays, model)
    labels = _labels(file.name, None if values is None else values.tolist(), model)
    if labels is not None and len(labels) != len(inputs[0]):
        raise DataError(f"{file.name}: {len(labels)} labels for {len(inputs[0])} rows")
    return Dataset(file.name, inputs, labels)


def _labels(name: str, values: Sequence[Any] | None, model: Model) -> NDArray[np.int64] | None:
    """Labels as class indices: numbers, or the model's class names."""
    if values is None:
        return None
    by_name = {label: i for i, label in enumerate(model.labels)}
    try:
        return np.asarray([by_name[v] if v in by_name else int(v) for v in values], np.int64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name}: labels must be class numbers or one of {list(model.labels)}: {error}"
        ) from error
