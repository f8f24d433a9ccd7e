"""The ring buffer against a list of the last samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparate_jax.control import window as windows
from apparate_jax.control.window import Rows
from apparate_jax.errors import ConfigError


def in_order(window: windows.Window) -> list[tuple]:
    """Samples of a settled window, oldest first."""
    size = len(window.errors)
    at = [(window.cursor - window.filled + i) % size for i in range(window.filled)]
    return [
        (window.errors[i].tolist(), window.agrees[i].tolist(), int(window.shapes[i])) for i in at
    ]


@given(
    st.integers(1, 9),
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=8),
    st.integers(0, 12),
)
def test_holds_the_last_samples(size, ramps, batches, last):
    rng = np.random.default_rng(size)
    window = windows.init(size, ramps)
    seen: list[tuple] = []
    for shape, (n, settles) in enumerate(batches):
        errors = rng.random((n, ramps)).astype(np.float32)
        agrees = rng.random((n, ramps)) < 0.5
        window = windows.push(window, Rows(errors, agrees, shape))
        seen += [(e, a, shape) for e, a in zip(errors.tolist(), agrees.tolist(), strict=True)]
        if settles:
            window = windows.settle(window)
            assert window.aside == ()
    assert in_order(windows.settle(window)) == seen[-size:]
    kept = windows.last(window, last)
    assert in_order(kept) == seen[-min(size, last) :] if last else kept.filled == 0
    assert len(kept.errors) == size


def test_leaves_the_old_window_as_it_was():
    old = windows.settle(
        windows.push(
            windows.init(4, 1), Rows(np.zeros((2, 1), np.float32), np.ones((2, 1), bool), 1)
        )
    )
    before = in_order(old)
    new = windows.push(old, Rows(np.full((3, 1), 0.5, np.float32), np.zeros((3, 1), bool), 2))
    assert in_order(old) == before and len(in_order(windows.settle(new))) == 4
    with pytest.raises(ValueError, match="read-only"):
        old.errors[0] = 1.0


@pytest.mark.parametrize(("errors", "agrees"), [((3, 1), (3, 2)), ((3, 2), (2, 2))])
def test_rows_that_do_not_fit_are_refused(errors, agrees):
    window = windows.init(4, 2)
    with pytest.raises(ConfigError, match=r"expected \[n, 2\] both"):
        windows.push(window, Rows(np.zeros(errors, np.float32), np.zeros(agrees, bool), 1))


def test_errors_that_are_no_shares_are_refused():
    rows = Rows(np.full((1, 1), 1.5, np.float32), np.ones((1, 1), bool), 1)
    with pytest.raises(ConfigError, match="1 - top probability"):
        windows.settle(windows.push(windows.init(4, 1), rows))


def test_a_window_has_a_place():
    with pytest.raises(ConfigError, match="at least 1"):
        windows.init(0, 1)
