"""Bit masks against sets of booleans."""

import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.control import bitmask


@pytest.mark.parametrize("size", [1, 31, 32, 33, 70])
def test_masks_agree_with_booleans(size: int):
    rng = np.random.default_rng(size)
    flags = rng.random((5, size)) < 0.4
    weights = rng.random(size).astype(np.float32)
    masks = bitmask.pack(jnp.asarray(flags))
    assert masks.shape == (5, -(-size // bitmask.WORD))
    np.testing.assert_array_equal(bitmask.count(masks), flags.sum(axis=1))
    one = bitmask.weigh(masks, jnp.float32(2.5))
    np.testing.assert_allclose(one, flags.sum(axis=1) * 2.5)
    each = bitmask.weigh(masks, bitmask.pad(jnp.asarray(weights)))
    np.testing.assert_allclose(each, (flags * weights).sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 32, 40])
def test_singles_are_rows_of_the_identity(size: int):
    singles = bitmask.singles(jnp.arange(size), size)
    np.testing.assert_array_equal(singles, bitmask.pack(jnp.eye(size, dtype=bool)))
