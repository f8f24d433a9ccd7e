"""Load data for a model: what the path is and what the model takes decide how it is read."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from apparate_jax.core import Model
from apparate_jax.data import video
from apparate_jax.data.dataset import ArrayDataset, Dataset, class_indices, fit
from apparate_jax.data.folder import load_folder
from apparate_jax.data.image import takes_images
from apparate_jax.data.image_table import load_image_table
from apparate_jax.data.text import SUFFIXES, TOKENIZER, TextEncoder, read_table
from apparate_jax.errors import DataError


def load_data(
    path: str | Path,
    model: Model,
    *,
    text_column: str = "text",
    image_column: str = "image",
    label_column: str = "label",
    fps: float | None = None,
    limit: int | None = None,
) -> Dataset:
    """Load data that fits a model.

    Args:
        path: ``.csv``, ``.jsonl`` or ``.parquet`` with a column of texts or of pictures, a folder
            of pictures, a video, or ``.npz`` with an array per input of the model.
        model: Names, shapes and dtypes of inputs, the tokenizer or how it takes pictures.
        text_column: Column of texts, for a model that takes them.
        image_column: Column of pictures or their paths, for a model that takes pictures.
        label_column: Column (or array) of labels, read if it is there.
        fps: Rows per second of video, its own frames unless given.
        limit: Use at most this many rows, from the first.

    Returns:
        Texts and arrays are in memory; pictures and frames are decoded when they are asked for.

    Raises:
        DataError: The file is missing, unreadable, of an unknown kind, or does not fit the model.
    """
    file = Path(path)
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}, expected at least 1")
    if file.is_dir():
        return load_folder(file, model, limit=limit)
    if not file.is_file():
        raise DataError(f"no data file at {file}")
    suffix = file.suffix.lower()
    if suffix in video.SUFFIXES:
        return video.VideoDataset(file, model, fps=fps, limit=limit)
    if suffix == ".npz":
        return _load_arrays(file, model, label_column, limit)
    if suffix not in SUFFIXES:
        known = [*SUFFIXES, ".npz", *video.SUFFIXES]
        raise DataError(
            f"{file.name} ends in {file.suffix!r}, expected one of {known} or a folder of pictures"
        )
    if TOKENIZER not in model.assets and (model.image or takes_images(model)):
        return load_image_table(file, model, image_column, label_column, limit)
    return _load_text(file, model, text_column, label_column, limit)


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
    labels = class_indices(file.name, columns.get(label_column), model)
    return ArrayDataset(file.name, inputs, None if labels is None else labels[:limit])


def _load_arrays(file: Path, model: Model, label_column: str, limit: int | None) -> Dataset:
    try:
        # Opened here: np.load leaves a file that is no archive open, and takes a lone array too.
        with file.open("rb") as opened, zipfile.ZipFile(opened), np.load(opened) as archive:
            arrays = {name: np.atleast_1d(archive[name])[:limit] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    values = arrays.pop(label_column, None)
    inputs = fit(file.name, arrays, model)
    labels = class_indices(file.name, None if values is None else values.tolist(), model)
    if labels is not None and len(labels) != len(inputs[0]):
        raise DataError(f"{file.name}: {len(labels)} labels for {len(inputs[0])} rows")
    return ArrayDataset(file.name, inputs, labels)
