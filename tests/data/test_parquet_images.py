import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from apparate_jax.data import load_data
from apparate_jax.data.image_table import BATCH_ROWS, ParquetImages
from apparate_jax.errors import DataError
from tests.data.pictures import (
    SHARED,
    encoded,
    flat,
    image_model,
    raw_model,
    shades,
    write_pictures,
)

COUNT = 3 * BATCH_ROWS + 17
HF = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path, count=COUNT, *, kind=HF, group=1000, column="image", labels=True):
    contents = [encoded(flat(row % 256, 4)) for row in range(count)]
    rows = [{"bytes": c, "path": None} for c in contents] if kind is HF else contents
    columns = {column: pa.array(rows, kind)}
    if labels:
        columns["label"] = pa.array([row % 7 for row in range(count)])
    parquet.write_table(pa.table(columns), path, row_group_size=group)
    return path


@pytest.mark.parametrize("kind", [HF, pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("group", [1, 50, BATCH_ROWS, 100, 1000])
def test_rows_in_order_whatever_the_row_groups(tmp_path, kind, group):
    data = load_data(write(tmp_path / "a.parquet", kind=kind, group=group), raw_model())
    assert len(data) == COUNT
    assert data.labels.tolist() == [row % 7 for row in range(COUNT)]
    found = [shade for start in range(0, COUNT, 8) for shade in shades(data, start, start + 8)]
    assert found == [row % 256 for row in range(COUNT)]


@pytest.mark.parametrize("group", [1, 50, 100, 1000])
def test_rows_in_any_order(tmp_path, group):
    source = ParquetImages(write(tmp_path / "a.parquet", group=group), "image")
    expected = source.read(0, COUNT)
    for row in np.random.default_rng(0).integers(0, COUNT, 60).tolist():
        assert source.read(row, row + 3) == expected[row : row + 3]


def test_reading_in_order_reads_every_batch_once_and_keeps_two(tmp_path):
    source = ParquetImages(write(tmp_path / "a.parquet", group=100), "image")
    for row in range(COUNT):
        source.read(row, row + 1)
        source.read(max(0, row - BATCH_ROWS), row + 1)  # a look back
        assert len(source._kept) <= 2
    assert source.batches_read == 4
    source.read(0, 1)  # around to the start
    assert source.batches_read == 5


def test_limit_and_no_labels(tmp_path):
    path = write(tmp_path / "a.parquet", labels=False)
    data = load_data(path, raw_model(), limit=5)
    assert len(data) == 5 and data.labels is None and shades(data, 3, 80) == [3, 4]
    (nothing,) = data.rows(0, 0)
    assert nothing.shape == (0, 8, 8, 3)


def test_names_of_classes_as_labels(tmp_path):
    contents = [encoded(flat(1))] * 3
    table = pa.table({"image": pa.array(contents), "animal": ["dog", "cat", "dog"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    model = raw_model(labels=("cat", "dog"))
    data = load_data(tmp_path / "a.parquet", model, label_column="animal")
    assert data.labels.tolist() == [1, 0, 1]


def test_a_column_of_another_name(tmp_path):
    path = write(tmp_path / "a.parquet", 4, column="img")
    assert shades(load_data(path, raw_model(), image_column="img")) == [0, 1, 2, 3]
    with pytest.raises(
        DataError, match=r"columns \['img', 'label'\], expected 'image'.*--image-col"
    ):
        load_data(path, raw_model())


def test_paths_in_parquet_are_relative_to_it(tmp_path):
    write_pictures(tmp_path / "pictures", [5, 6])
    names = ["pictures/0.png", "pictures/1.png"]
    parquet.write_table(pa.table({"image": names}), tmp_path / "text.parquet")
    assert shades(load_data(tmp_path / "text.parquet", raw_model())) == [5, 6]
    rows = pa.array([{"bytes": None, "path": name} for name in names], HF)
    parquet.write_table(pa.table({"image": rows}), tmp_path / "struct.parquet")
    assert shades(load_data(tmp_path / "struct.parquet", raw_model())) == [5, 6]


def test_a_damaged_picture_is_named(tmp_path):
    contents = [encoded(flat(1))] * 90
    contents[70] = contents[70][:30]
    parquet.write_table(pa.table({"image": pa.array(contents)}), tmp_path / "a.parquet")
    data = load_data(tmp_path / "a.parquet", raw_model())
    assert shades(data, 60, 70) == [1] * 10
    with pytest.raises(DataError, match=r"a.parquet, row 70: no picture"):
        data.rows(64, 72)


def test_a_row_without_a_picture(tmp_path):
    rows = pa.array([{"bytes": encoded(flat(1)), "path": None}, None], HF)
    parquet.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 1: it holds no picture"):
        load_data(tmp_path / "a.parquet", raw_model()).rows(0, 2)


def test_files_that_cannot_be_used(tmp_path):
    numbers = tmp_path / "numbers.parquet"
    parquet.write_table(pa.table({"image": [1, 2]}), numbers)
    with pytest.raises(DataError, match="'image' is int64, expected bytes"):
        load_data(numbers, raw_model())
    empty = write(tmp_path / "empty.parquet", 0)
    with pytest.raises(DataError, match="has no rows"):
        load_data(empty, raw_model())
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(write(tmp_path / "a.parquet").read_bytes()[:2000])
    with pytest.raises(DataError, match="cannot read"):
        load_data(cut, raw_model())


def test_a_file_that_is_damaged_inside(tmp_path):
    path = write(tmp_path / "a.parquet", group=100)
    content = bytearray(path.read_bytes())
    start = parquet.ParquetFile(path).metadata.row_group(2).column(0).dictionary_page_offset
    start = start or parquet.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    data = load_data(path, raw_model())
    with pytest.raises(DataError, match=r"a.parquet"):
        data.rows(0, COUNT)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real pictures are not there")
def test_cifar10_as_published():
    data = load_data(SHARED / "images" / "cifar10-test.parquet", image_model(32))
    assert len(data) == 5000 and sorted(set(data.labels.tolist())) == list(range(10))
    (values,) = data.rows(100, 164)
    assert values.shape == (64, 32, 32, 3) and -1.0 <= values.min() < values.max() <= 1.0
    assert 0.3 < values.std() < 0.8
