"""The ring buffer against a list of the last samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.control import window as windows
from apparate_jax.errors import ConfigError


@given(st.integers(1, 9), st.integers(0, 3), st.lists(st.integers(0, 12), max_size=8))
def test_holds_the_last_samples(size: int, ramps: int, batches: list[int]):
    rng = np.random.default_rng(size)
    window = windows.init(size, ramps)
    seen: list[tuple] = []
    for n in batches:
        errors = rng.random((n, ramps)).astype(np.float32)
        agrees = rng.random((n, ramps)) < 0.5
        exits = rng.integers(0, ramps + 1, n).astype(np.int32)
        window = windows.push(window, errors, agrees, exits)
        seen += zip(errors.tolist(), agrees.tolist(), exits.tolist(), strict=True)
        kept = [
            (window.errors[i].tolist(), window.agrees[i].tolist(), int(window.exits[i]))
            for i in range(window.filled)
        ]
        assert sorted(kept) == sorted(seen[-size:])
        given = [agrees[e] if e < ramps else True for _, agrees, e in seen[-size:]]
        assert windows.accuracy(window) == pytest.approx(np.mean(given) if given else 1.0)


def test_push_leaves_the_old_window_as_it_was():
    before = windows.init(4, 1)
    row = (np.full((1, 1), 0.25, np.float32), np.ones((1, 1), bool), np.zeros(1, np.int32))
    after = windows.push(before, *row)
    assert (before.filled, after.filled) == (0, 1)
    assert before.errors[0, 0] == 1.0
    assert after.errors[0, 0] == 0.25
    with pytest.raises(ValueError, match="read-only"):
        after.errors[0, 0] = 0.5


def test_bad_shapes_are_refused():
    window = windows.init(4, 2)
    with pytest.raises(ConfigError, match=r"expected \[n, 2\]"):
        windows.push(
            window, np.zeros((3, 1), np.float32), np.ones((3, 1), bool), np.zeros(3, np.int32)
        )
    with pytest.raises(ConfigError, match="at least 1"):
        windows.init(0, 2)
