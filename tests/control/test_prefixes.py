"""Prefixes of thresholds against sets of booleans."""

import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.control import bitmask
from apparate_jax.control import prefixes as px


@pytest.mark.parametrize("allowed", [0, 1, 3, 40])
def test_extends_to_the_largest_threshold_that_is_allowed(allowed: int):
    rng = np.random.default_rng(allowed)
    errors = (rng.integers(0, 9, (40, 2)) / 10).astype(np.float32)
    errors[:4, 0] = np.nan
    agrees = rng.random((40, 2)) < 0.6
    order = px.order_of(jnp.asarray(errors), jnp.asarray(agrees))
    first = px.start(40, jnp.int32(36))
    grown = px.extend(first, order, 0, jnp.float32(2.0), slice(None), np.full(1, allowed, np.int32))
    counted = np.arange(40) < 36
    sets = [(errors[:, 0] < t) & counted for t in np.append(np.unique(errors[4:, 0]), 1.0)]
    leaving = max((s for s in sets if (s & ~agrees[:, 0]).sum() <= allowed), key=np.sum)
    assert grown.staying.tolist() == bitmask.pack(jnp.asarray((counted & ~leaving)[None])).tolist()
    assert grown.missed.tolist() == [2.0 * (counted & ~leaving).sum()]
    assert grown.wrong.tolist() == [(leaving & ~agrees[:, 0]).sum()]
    (threshold,) = px.thresholds_of(order.keys[:1], grown.positions[0]).tolist()
    np.testing.assert_array_equal((errors[:, 0] < threshold) & counted, leaving)


def test_steps_are_what_staying_once_more_misses():
    assert px.steps_of(jnp.asarray([5.0, 3.0, 3.0])).tolist() == [2.0, 0.0, 3.0]
    each = px.steps_of(jnp.asarray([[5.0, 3.0], [1.0, 0.0]]))
    assert each.shape == (2, bitmask.WORD)
    assert each[:, :2].tolist() == [[2.0, 1.0], [3.0, 0.0]]
    assert not each[:, 2:].any()


def test_of_equals_the_fewest_wrong_is_best():
    prefixes = px.Prefixes(
        jnp.zeros((4, 1), jnp.uint32),
        jnp.asarray([1.0, 2.0, 1.0, 0.0]),
        jnp.asarray([3, 0, 2, 0], jnp.int32),
        jnp.zeros((4, 0), jnp.int32),
    )
    assert int(px.best_of(prefixes, jnp.asarray([True, True, True, False]))) == 2
    assert int(px.best_of(prefixes, jnp.asarray([True, True, False, False]))) == 0


def test_useless_ramps_are_closed():
    thresholds = jnp.asarray([0.5, 0.25])
    assert px.closed_where_useless(thresholds, jnp.asarray([1.0, 0.0])).tolist() == [0.5, 0.0]
    each = jnp.asarray([[1.0, 0.0], [2.0, 1.0]])
    assert px.closed_where_useless(thresholds, each).tolist() == [0.5, 0.25]
