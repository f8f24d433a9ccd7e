"""Tables of pictures: Parquet with the encoded pictures inside, CSV or JSON lines with their paths.

Parquet columns are as in Hugging Face image data sets: a struct of ``bytes`` and ``path``, or plain
bytes; a text column holds paths. Pictures are read by batches of :data:`BATCH_ROWS` rows, whatever
the size of the file's row groups, and the last two batches are kept: reading in order reads
everything once.

Sharp edges: paths are relative to the table's own folder. Reading far back or ahead starts again at
the row group that holds the row.
"""

import bisect
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from apparate_jax.core import Model
from apparate_jax.data.dataset import class_indices
from apparate_jax.data.folder import Files
from apparate_jax.data.image import ImageDataset, ImageEncoder
from apparate_jax.data.text import missing_column, read_table
from apparate_jax.errors import DataError

BATCH_ROWS = 64
_KEPT = 2


def load_image_table(
    file: Path, model: Model, image_column: str, label_column: str, limit: int | None
) -> ImageDataset:
    """Pictures of a Parquet, CSV or JSON lines file.

    Args:
        file: The table.
        model: How it takes pictures.
        image_column: Column of pictures or of their paths.
        label_column: Column of labels, read if it is there.
        limit: Use at most this many rows.

    Raises:
        DataError: An unreadable file, a missing column, one without pictures, or a model that takes
            none.
    """
    encoder = ImageEncoder(model)
    source: ParquetImages | Files
    if file.suffix.lower() == ".parquet":
        source = ParquetImages(file, image_column, limit)
        labels = source.column(label_column)
        if source.holds_paths:
            source = _files(file, source.column(image_column), image_column, limit)
    else:
        columns = read_table(file, [image_column], [label_column])
        labels = columns.get(label_column)
        source = _files(file, columns[image_column], image_column, limit)
    numbers = class_indices(file.name, None if labels is None else labels[: len(source)], model)
    return ImageDataset(file.name, source, encoder, numbers)


def _files(file: Path, values: list[Any] | None, column: str, limit: int | None) -> Files:
    paths = (values or [])[:limit]
    for row, path in enumerate(paths):
        if not isinstance(path, str) or not path:
            raise DataError(f"{file.name}, row {row}: {column!r} is {path!r}, expected a path")
    return Files(file.parent, [file.parent / path for path in paths])


class ParquetImages:
    """A column of encoded pictures, read in batches.

    Attributes:
        batches_read: How many batches were read so far.
    """

    def __init__(self, path: Path, column: str, limit: int | None = None) -> None:
        """Read the file's footer.

        Args:
            path: The file.
            column: Of pictures.
            limit: Use at most this many rows.

        Raises:
            DataError: An unreadable or empty file, a missing column, or one of another type.
        """
        import pyarrow as pa
        from pyarrow import parquet

        self.batches_read = 0
        self._path = path
        self._column = column
        try:
            self._file = parquet.ParquetFile(path, pre_buffer=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}") from error
        schema = self._file.schema_arrow
        if column not in schema.names:
            raise missing_column(path, schema.names, column)
        self._kind = schema.field(column).type
        self._check_kind(pa)
        self._rows = self._file.metadata.num_rows
        if self._rows == 0:
            raise DataError(f"{path} has no rows")
        self._count: int = min(self._rows, self._rows if limit is None else limit)
        self._starts = self._row_groups()
        self._kept: OrderedDict[int, list[Any]] = OrderedDict()
        self._cursor: Iterator[tuple[int, list[Any]]] = iter(())
        self._next = -1  # the batch that the cursor gives next, -1 for none

    def _check_kind(self, pa: Any) -> None:
        kind = self._kind
        names = [kind.field(i).name for i in range(kind.num_fields)]
        is_struct = pa.types.is_struct(kind) and "bytes" in names
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if not (is_struct or binary or self.holds_paths):
            raise DataError(
                f"{self._path.name}: the column {self._column!r} is {kind}, expected bytes, a "
                "struct of bytes and path, or paths (name another with --image-column)"
            )

    @property
    def holds_paths(self) -> bool:
        """Whether the column is text: paths of pictures."""
        return str(self._kind) in ("string", "large_string", "string_view")

    def __len__(self) -> int:
        return self._count

    def column(self, name: str) -> list[Any] | None:
        """Another column as Python values, None if it is not there."""
        if name not in self._file.schema_arrow.names:
            return None
        values: list[Any] = self._file.read(columns=[name]).column(name).to_pylist()
        return values

    def read(self, start: int, stop: int) -> list[bytes]:
        """The encoded pictures ``start`` to ``stop``.

        Raises:
            DataError: The file is damaged there, or a row has no picture.
        """
        found: list[bytes] = []
        for row in range(start, min(stop, self._count)):
            batch = self._batch(row // BATCH_ROWS)
            found.append(self._content(row, batch[row % BATCH_ROWS]))
        return found

    def _content(self, row: int, value: Any) -> bytes:
        if isinstance(value, dict) and value.get("bytes") is None and value.get("path"):
            path = self._path.parent / str(value["path"])
            return Files(self._path.parent, [path]).read(0, 1)[0]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(f"{self._path.name}, {self.place(row)}: it holds no picture")
        return content

    def place(self, row: int) -> str:
        """``row 3``."""
        return f"row {row}"

    def _row_groups(self) -> list[int]:
        """The first row of each row group, and the end."""
        sizes = [
            self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)
        ]
        return [0, *np.cumsum(sizes).tolist()]

    def _batch(self, number: int) -> list[Any]:
        """Rows ``number * BATCH_ROWS`` and following, kept for a while."""
        import pyarrow as pa

        if number not in self._kept:
            try:
                if not 0 <= self._next <= number or self._group(number) > self._group(self._next):
                    self._restart(number)
                while number not in self._kept:
                    at, rows = next(self._cursor)
                    self._keep(at, rows)
            except (pa.ArrowException, OSError, StopIteration) as error:
                first = number * BATCH_ROWS
                raise DataError(
                    f"{self._path.name} is damaged near row {first}: {error or 'it ends there'}"
                ) from error
        return self._kept[number]

    def _keep(self, number: int, rows: list[Any]) -> None:
        self._kept[number] = rows
        self._next = number + 1
        self.batches_read += 1
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def _restart(self, number: int) -> None:
        """Stand before a batch, at the row group in which it begins."""
        self._cursor = self._batches(self._group(number))
        self._next = number

    def _group(self, number: int) -> int:
        """The row group in which a batch begins."""
        return bisect.bisect_right(self._starts, number * BATCH_ROWS) - 1

    def _batches(self, group: int) -> Iterator[tuple[int, list[Any]]]:
        """Batches that are cut at multiples of BATCH_ROWS, from a row group on.

        Rows of the group before its first whole batch are skipped.
        """
        position = self._starts[group]
        waiting: list[Any] = []
        groups = list(range(group, self._file.num_row_groups))
        for piece in self._file.iter_batches(BATCH_ROWS, row_groups=groups, columns=[self._column]):
            rows = piece.column(0).to_pylist()
            skipped = min(-position % BATCH_ROWS, len(rows)) if not waiting else 0
            position += skipped
            waiting += rows[skipped:]
            while len(waiting) >= BATCH_ROWS:
                yield position // BATCH_ROWS, waiting[:BATCH_ROWS]
                waiting = waiting[BATCH_ROWS:]
                position += BATCH_ROWS
        if waiting:
            yield position // BATCH_ROWS, waiting
