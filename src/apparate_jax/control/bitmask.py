"""Sets of samples as bit masks, 32 samples a word, for many sets at a time.

Used by the exact search: hundreds to thousands of candidate thresholds, each with the set of
samples that it lets out. Bits beyond the last sample are always 0.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Shaped, UInt32

WORD = 32
"""Samples in one word."""


def pack(flags: Bool[Array, "sets n"]) -> UInt32[Array, "sets words"]:
    """Bit masks of the samples that are flagged.

    >>> pack(jnp.asarray([[True, False, True]])).tolist()
    [[5]]
    """
    bits = pad(flags).reshape(flags.shape[0], -1, WORD).astype(jnp.uint32)
    return (bits << jnp.arange(WORD, dtype=jnp.uint32)).sum(axis=2, dtype=jnp.uint32)


def pad(values: Shaped[Array, "*rows n"]) -> Shaped[Array, "*rows padded"]:
    """Fill the last axis up to whole words with zeros."""
    rows = [(0, 0)] * (values.ndim - 1)
    return jnp.pad(values, [*rows, (0, -values.shape[-1] % WORD)])


def singles(samples: Int32[Array, "*rows"], size: int) -> UInt32[Array, "*rows words"]:
    """One mask for each sample of ``size``, that sample alone.

    >>> singles(jnp.asarray([0, 33]), 40).tolist()
    [[1, 0], [0, 2]]
    """
    bit = jnp.uint32(1) << (samples % WORD).astype(jnp.uint32)
    here = (samples // WORD)[..., None] == jnp.arange(-(-size // WORD))
    return jnp.where(here, bit[..., None], jnp.uint32(0))


def count(masks: UInt32[Array, "sets words"]) -> Int32[Array, " sets"]:
    """How many samples are in each set.

    >>> count(jnp.asarray([[5, 1]], jnp.uint32)).tolist()
    [3]
    """
    return jax.lax.population_count(masks).astype(jnp.int32).sum(axis=1)


def weigh(
    masks: UInt32[Array, "sets words"], weight: Float[Array, ""] | Float[Array, " padded"]
) -> Float[Array, " sets"]:
    """Sum of the weights of each set's samples.

    Args:
        masks: The sets.
        weight: One for all samples, or one for each, filled up to whole words.

    >>> weigh(jnp.asarray([[5]], jnp.uint32), jnp.asarray(1.5)).tolist()
    [3.0]
    """
    if weight.ndim == 0:
        return count(masks) * weight
    bits = (masks[..., None] >> jnp.arange(WORD, dtype=jnp.uint32)) & 1
    return jnp.where(bits.reshape(len(masks), -1) == 1, weight, 0.0).sum(axis=1)
