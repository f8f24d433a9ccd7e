"""Scores as classes: order, ties, labels, and how many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apparate_jax.serve.inference.classification import top_classes


def test_highest_first_with_labels():
    scores = np.array([[0.25, -1.5, 3.0], [2.0, 2.0, -1.0]], np.float32)
    found = top_classes(scores, 2, ("no", "maybe", "yes"))
    assert found.tolist() == [
        [b"3.000000:2:yes", b"0.250000:0:no"],
        [b"2.000000:0:no", b"2.000000:1:maybe"],
    ]


@pytest.mark.parametrize("count", [3, 4, 10**9])
def test_no_more_classes_than_there_are(count):
    assert top_classes(np.zeros((2, 3), np.float32), count, ()).shape == (2, 3)


@given(
    scores=arrays(np.float32, (2, 7), elements=st.floats(-1e3, 1e3, width=32)),
    count=st.integers(1, 7),
)
def test_they_are_the_top_of_the_scores(scores, count):
    for row, texts in zip(scores, top_classes(scores, count, ()), strict=True):
        pairs = [text.decode().split(":") for text in texts]
        indices = [int(index) for _, index in pairs]
        assert row[indices].tolist() == sorted(row.tolist(), reverse=True)[:count]
        np.testing.assert_allclose([float(v) for v, _ in pairs], row[indices], atol=1e-6)
