"""Streams: which rows come when."""

import numpy as np
import pytest

from apparate_jax.bench.recording import concatenate
from apparate_jax.bench.streams import STREAMS, groups_of, order
from apparate_jax.errors import ConfigError
from tests.bench import tiny


def test_kinds_draw_only_rows_behind_the_sample():
    made = tiny.recording(100)
    for kind in STREAMS:
        rows = order(kind, made, 500, first=10, seed=3)
        assert len(rows) == 500 and rows.min() >= 10 and rows.max() < 100
        np.testing.assert_array_equal(rows, order(kind, made, 500, first=10, seed=3))


def test_as_recorded_goes_in_a_circle():
    rows = order("recorded", tiny.recording(6), 8, first=2)
    assert rows.tolist() == [2, 3, 4, 5, 2, 3, 4, 5]


def test_two_data_sets():
    both = concatenate([tiny.recording(40), tiny.recording(60, 1)])
    shift = order("shift", both, 100) >= 40
    assert not shift[:50].any() and shift[50:].all()
    drift = order("drift", both, 3000) >= 40
    shares = [part.mean() for part in np.array_split(drift, 3)]
    assert shares[0] < 0.25 < 0.4 < shares[1] < 0.6 < 0.75 < shares[2]


def test_one_data_set_becomes_harder():
    made = tiny.recording(100)
    easy, hard = groups_of(made)
    assert made.errors[easy].mean(axis=1).max() <= made.errors[hard].mean(axis=1).min()


def test_what_is_no_stream():
    with pytest.raises(ConfigError, match="the stream is 'tide', expected one of"):
        order("tide", tiny.recording(), 5)
    with pytest.raises(ConfigError, match="0 rows from row 0 on"):
        order("shift", tiny.recording(), 0)
