import numpy as np
import pytest

from apparate_jax.bench import feed as module
from apparate_jax.bench.feed import Held, feed
from apparate_jax.data import ArrayDataset
from apparate_jax.errors import DataError
from tests.bench import tiny


class Counted(ArrayDataset):
    """Counts the rows that were read."""

    __slots__ = ("read",)

    def __init__(self, rows):
        x = np.arange(rows, dtype=np.float32)[:, None]
        super().__init__("rows", (np.broadcast_to(x, (rows, tiny.CLASSES)).copy(),))
        object.__setattr__(self, "read", [])

    def rows(self, start, stop):
        self.read.append((start, stop))
        return super().rows(start, stop)


def rows_of(examples):
    return [int(example["x"][0]) for example in examples]


@pytest.mark.parametrize(("first", "count"), [(0, 5), (3, 40), (95, 250), (100, 1), (7, 0)])
def test_examples_in_order_and_around_to_the_start(first, count):
    found = rows_of(feed(Counted(100), tiny.model(), first, count))
    assert found == [(first + i) % 100 for i in range(count)]


def test_a_bounded_number_is_read_ahead():
    data = Counted(10_000)
    examples = feed(data, tiny.model(), 0, 10_000)
    for expected in range(500):
        assert rows_of([next(examples)]) == [expected]
        assert data.read[-1][1] <= expected + 16 + 3 * 16
    examples.close()


def test_held_rows_go_in_a_circle_and_are_read_once(monkeypatch):
    monkeypatch.setattr(module, "HELD_BYTES", 10 * 4 * tiny.CLASSES)
    data = Counted(100)
    held = Held(data, tiny.model())
    assert rows_of(held[i] for i in range(25)) == [i % 10 for i in range(25)]
    assert data.read == [(0, 1), (0, 10)]


def test_all_rows_are_held_where_they_fit():
    held = Held(Counted(100), tiny.model())
    assert rows_of(held[i] for i in range(205)) == [i % 100 for i in range(205)]


def test_nothing_to_send():
    with pytest.raises(DataError, match="has no rows"):
        Held(ArrayDataset("nothing", ()), tiny.model())
