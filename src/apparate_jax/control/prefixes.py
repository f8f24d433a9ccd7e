"""Prefixes of a choice of thresholds, many at a time: who stays, and what that misses.

The searches fix one threshold after the other, first ramp first. A prefix is a bit mask of the
samples that stay; "the first p samples in the order of error" is a bit mask too, tabled for every
p, so that "how many wrong samples would leave" is an AND and a population count, and the largest
such p is a binary search.

Sharp edges: samples of equal error cannot be separated, so a threshold is the error of the first
wrong sample that must stay. Nothing is computed with errors, they are only ordered, by their bits:
XLA flushes the smallest floats to zero, the live comparison on the host does not.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, UInt32
from numpy.typing import NDArray

from apparate_jax.control import bitmask

OPEN = 1.0
"""The threshold that lets everyone out: an error is at most 1 - 1/classes."""

NEVER = np.int32(np.iinfo(np.int32).max)
"""A key behind every error: never exits."""


class Order(NamedTuple):
    """The samples of each ramp in the order of error; position p stands for the first p of them.

    Attributes:
        keys: ``keys[r, p]`` orders as the error of sample p does.
        clean: ``clean[r, p]`` is the largest position up to p that does not split equal errors.
        below: ``below[r, p]`` is the mask of the first p samples.
        wrong: The mask of the samples whose answer at the ramp is not the original's.
    """

    keys: Int32[Array, "r positions"]
    clean: Int32[Array, "r positions"]
    below: UInt32[Array, "r positions words"]
    wrong: UInt32[Array, "r words"]


class Prefixes(NamedTuple):
    """Thresholds up to some ramp, one entry for each choice of them.

    Attributes:
        staying: Who has not left.
        missed: What those who stayed at each ramp missed, in the unit of the savings.
        wrong: Wrong exits that happened.
        positions: The position of each threshold.
    """

    staying: UInt32[Array, "prefixes words"]
    missed: Float32[Array, " prefixes"]
    wrong: Int32[Array, " prefixes"]
    positions: Int32[Array, "prefixes ramps"]


def order_of(errors: Float32[Array, "n r"], agrees: Bool[Array, "n r"]) -> Order:
    """Sort every ramp's samples by error; those that cannot exit come last and are in no mask."""
    size = len(errors)
    bits = jax.lax.bitcast_convert_type(errors, jnp.int32) & NEVER  # without the sign: -0.0 is 0.0
    keys = jnp.where(errors < OPEN, bits, NEVER).T
    samples = jnp.argsort(keys, axis=1)
    keys = jnp.take_along_axis(keys, samples, axis=1)
    single = jnp.where((keys != NEVER)[..., None], bitmask.singles(samples, size), jnp.uint32(0))
    below = jnp.cumsum(single, axis=1, dtype=jnp.uint32)  # the bits differ: a sum is an OR
    new = jnp.pad(keys[:, 1:] != keys[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    new = jnp.concatenate([new, keys[:, -1:] != NEVER], axis=1)
    return Order(
        keys=jnp.pad(keys, ((0, 0), (0, 1)), constant_values=NEVER),
        clean=jax.lax.cummax(jnp.where(new, jnp.arange(size + 1), 0), axis=1),
        below=jnp.pad(below, ((0, 0), (1, 0), (0, 0))),
        wrong=bitmask.pack(~agrees.T),
    )


def steps_of(
    savings: Float32[Array, " r"] | Float32[Array, "n r"],
) -> Float32[Array, " r"] | Float32[Array, "r padded"]:
    """What a sample that stays at a ramp misses; by sample, it is filled up to whole words."""
    steps = savings.T - jnp.concatenate([savings.T[1:], jnp.zeros_like(savings.T[:1])])
    return steps if steps.ndim == 1 else bitmask.pad(steps)


def start(size: int, samples: Int32[Array, ""]) -> Prefixes:
    """The one prefix of no thresholds: the first ``samples`` of ``size`` rows stay."""
    return Prefixes(
        bitmask.pack(jnp.arange(size)[None] < samples),
        jnp.zeros(1),
        jnp.zeros(1, jnp.int32),
        jnp.zeros((1, 0), jnp.int32),
    )


def extend(
    prefixes: Prefixes,
    order: Order,
    ramp: int | Int32[Array, ""],
    step: Float32[Array, "*weights"],
    parent: NDArray[np.int32] | slice,
    allowed: Int32[Array, " children"] | NDArray[np.int32],
) -> Prefixes:
    """Give prefixes their thresholds at one more ramp.

    Args:
        prefixes: Those to go on from.
        order: The window.
        ramp: Its row in ``order``.
        step: What a sample that stays there misses: one for all, or one for each.
        parent: The prefix that each child extends.
        allowed: How many wrong samples each child may let out there.

    Returns:
        One prefix for each child.
    """
    here = prefixes.staying[parent]
    at_risk = here & order.wrong[ramp]
    position = _largest_position(at_risk, order, ramp, allowed)
    leaving = order.below[ramp, position]
    staying = here & ~leaving
    return Prefixes(
        staying,
        prefixes.missed[parent] + bitmask.weigh(staying, step),
        prefixes.wrong[parent] + bitmask.count(at_risk & leaving),
        jnp.concatenate([prefixes.positions[parent], position[:, None]], axis=1),
    )


def thresholds_of(
    keys: Int32[Array, "ramps positions"], positions: Int32[Array, " ramps"]
) -> Float32[Array, " ramps"]:
    """The thresholds that stand at ``positions``."""
    found = jnp.take_along_axis(keys, positions[:, None], axis=1)[:, 0]
    return jnp.where(found == NEVER, OPEN, jax.lax.bitcast_convert_type(found, jnp.float32))


def best_of(prefixes: Prefixes, valid: Bool[Array, " prefixes"]) -> Int32[Array, ""]:
    """The valid prefix that misses least; of equals, the one with fewest wrong exits."""
    missed = jnp.where(valid, prefixes.missed, jnp.inf)
    return jnp.argmin(jnp.where(missed == missed.min(), prefixes.wrong, NEVER)).astype(jnp.int32)


def closed_where_useless(
    thresholds: Float32[Array, " r"], savings: Float32[Array, " r"] | Float32[Array, "n r"]
) -> Float32[Array, " r"]:
    """Thresholds, 0 at ramps where no exit saves anything."""
    useful = (savings.reshape(-1, len(thresholds)) > 0).any(axis=0)
    return jnp.where(useful, thresholds, 0.0)


def _largest_position(
    at_risk: UInt32[Array, "children words"],
    order: Order,
    ramp: int | Int32[Array, ""],
    allowed: Int32[Array, " children"] | NDArray[np.int32],
) -> Int32[Array, " children"]:
    """The largest threshold that lets no more than ``allowed`` of the samples at risk out."""
    samples = order.keys.shape[1] - 1
    num_bits = samples.bit_length()

    def one_bit(i: Int32[Array, ""], found: Int32[Array, " children"]) -> jax.Array:
        tried = found + (1 << (num_bits - 1 - i))
        fits = bitmask.count(at_risk & order.below[ramp, jnp.minimum(tried, samples)]) <= allowed
        return jnp.where(fits & (tried <= samples), tried, found)

    none = jnp.zeros(at_risk.shape[0], jnp.int32)
    return order.clean[ramp, jax.lax.fori_loop(0, num_bits, one_bit, none)]
