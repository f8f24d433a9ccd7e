"""Text: CSV, JSON lines and Parquet with a text column, tokenised as the model wants it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.errors import DataError

TOKENIZER = "tokenizer.json"
PADDING = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")
"""Padding tokens, the first one that a vocabulary has."""
SUFFIXES = (".csv", ".jsonl", ".parquet")


class TextEncoder:
    """Turns texts into token ids and masks of the model's fixed length."""

    def __init__(self, model: Model) -> None:
        """Make the encoder of a model from the tokenizer that it carries.

        Raises:
            DataError: If the model has no sound tokenizer, or takes others than ids and masks.
        """
        from tokenizers import Tokenizer

        if TOKENIZER not in model.assets:
            raise DataError(
                f"the model {model.name!r} carries no {TOKENIZER}, so it cannot read text: "
                "put the file beside its config.json, or give the data as .npz of its inputs"
            )
        self._names = [spec.name for spec in model.inputs]
        if not self._names or len(model.inputs[0].shape) != 1:
            raise DataError(
                f"the model {model.name!r} takes {self._names}, expected token ids of one length"
            )
        length = model.inputs[0].shape[0]
        try:
            self._tokenizer = Tokenizer.from_buffer(model.assets[TOKENIZER])
        except ValueError as error:
            raise DataError(
                f"the {TOKENIZER} of the model {model.name!r} cannot be read ({error}): "
                "copy or download it again"
            ) from error
        self._tokenizer.enable_truncation(length)
        token, index = _padding(self._tokenizer)
        self._tokenizer.enable_padding(length=length, pad_id=index, pad_token=token)

    def __call__(self, texts: Sequence[str]) -> dict[str, NDArray[np.int32]]:
        """Encode texts.

        Returns:
            i32[count, length] by input name.
        """
        encoded = self._tokenizer.encode_batch(list(texts))
        columns = {
            "input_ids": [e.ids for e in encoded],
            "attention_mask": [e.attention_mask for e in encoded],
            "token_type_ids": [e.type_ids for e in encoded],
        }
        missing = [name for name in self._names if name not in columns]
        if missing:
            raise DataError(
                f"the model takes {missing}, but a tokenizer gives only {sorted(columns)}"
            )
        return {name: np.asarray(columns[name], np.int32) for name in self._names}


def _padding(tokenizer: Any) -> tuple[str, int]:
    """The padding token and its id.

    What the tokenizer is set to, else the padding token of its vocabulary. GPT-2 has none: the end
    of text stands in, and the mask tells them apart.
    """
    if tokenizer.padding:
        return tokenizer.padding["pad_token"], tokenizer.padding["pad_id"]
    for token in PADDING:
        index = tokenizer.token_to_id(token)
        if index is not None:
            return token, index
    return PADDING[0], 0


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of a CSV, JSON-lines or Parquet file as Python values.

    Args:
        path: The file; its suffix decides how it is read.
        columns: Columns that must be there.
        optional: Columns that are read if they are there.

    Raises:
        DataError: Unknown suffix, unreadable file, or a missing column (lists what is there).
    """
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    try:
        if path.suffix.lower() == ".csv":
            table = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))
        elif path.suffix.lower() == ".jsonl":
            table = json.read_json(path, parse_options=json.ParseOptions(newlines_in_values=True))
        else:
            table = parquet.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise missing_column(path, table.column_names, missing[0])
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows")
    wanted = [*columns, *(name for name in optional if name in table.column_names)]
    return {name: table.column(name).to_pylist() for name in wanted}


def missing_column(path: Path, found: Sequence[str], wanted: str) -> DataError:
    """The error for a column that is not there; lists those that are."""
    return DataError(
        f"{path} has columns {list(found)}, expected {wanted!r} among them (name another with "
        "--text-column, --image-column or --label-column)"
    )
