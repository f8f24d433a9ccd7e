"""Exact threshold tuning: enumerate how the budget of wrong answers is shared out over the ramps.

For a given number of wrong exits at each ramp, the best threshold at a ramp is the largest one that
lets no more wrong samples out among those that reach it: raising a threshold without a new wrong
exit only moves samples to an earlier exit, which saves at least as much, and can only take wrong
exits away from later ramps. So the optimum is among the ways to share ``B`` wrong answers over
``R`` ramps. The last ramp may always use what is left, which leaves ``C(B + R - 1, R - 1)``.

They are expanded ramp by ramp, every prefix once and all prefixes of a level together. A prefix is
a bit mask of the samples that stay; "the first p samples in the order of error" is a bit mask too,
tabled for every p, so that "how many wrong samples would leave" is an AND and a population count,
and the largest such p is a binary search.

Sharp edges: samples of equal error cannot be separated, so a threshold is the error of the first
wrong sample that must stay. Nothing is computed with errors, they are only ordered, by their bits:
XLA flushes the smallest floats to zero, the live comparison on the host does not. One program is
compiled for each window size, number of ramps and largest budget.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, UInt32
from numpy.typing import NDArray

from apparate_jax.control import bitmask
from apparate_jax.errors import ConfigError

MAX_CANDIDATES = 200_000
"""More ways to share the budget than this are refused: use greedy, or fewer ramps."""

OPEN = 1.0
"""The threshold that lets everyone out: an error is at most 1 - 1/classes."""

_NEVER = np.int32(np.iinfo(np.int32).max)  # behind every error: never exits


class _Level(NamedTuple):
    """How the prefixes of one ramp extend those before it (static)."""

    parent: NDArray[np.int32]
    wrong: NDArray[np.int32]


class _Order(NamedTuple):
    """The samples of each ramp in the order of error; position p stands for the first p of them.

    ``keys[r, p]`` orders as the error of sample p does, ``clean[r, p]`` is the largest position up
    to p that does not split equal errors, ``below[r, p]`` the mask of the first p samples.
    """

    keys: Int32[Array, "r positions"]
    clean: Int32[Array, "r positions"]
    below: UInt32[Array, "r positions words"]


class _Prefixes(NamedTuple):
    """Thresholds up to some ramp, one entry for each way to share the budget so far.

    Who stays, the saving missed by those who stayed at each ramp, wrong exits that happened, and
    the position of each threshold.
    """

    staying: UInt32[Array, "prefixes words"]
    missed: Float32[Array, " prefixes"]
    wrong: Int32[Array, " prefixes"]
    positions: Int32[Array, "prefixes ramps"]


def num_candidates(budget: int, ramps: int) -> int:
    """How many ways to share ``budget`` wrong answers over ``ramps`` are searched.

    >>> num_candidates(5, 3), num_candidates(5, 12)
    (21, 4368)
    """
    return math.comb(budget + ramps - 1, ramps - 1)


@partial(jax.jit, static_argnames="budget")
def search(
    errors: Float32[Array, "n r"],
    agrees: Bool[Array, "n r"],
    savings: Float32[Array, " r"] | Float32[Array, "n r"],
    samples: Int32[Array, ""],
    limit: Int32[Array, ""],
    budget: int,
) -> Float32[Array, " r"]:
    """Thresholds that save most with at most ``limit`` wrong answers; of equals, fewest wrong.

    Args:
        errors: Error of each sample at each ramp, 0..1, or NaN: never exits.
        agrees: Whether the ramp's answer is the original's.
        savings: What an exit saves, not negative and not increasing along the ramps.
        samples: Only so many of the first rows count.
        limit: Wrong answers allowed, at most ``budget``.
        budget: Static bound of ``limit``: one compiled program serves every smaller limit.

    Returns:
        One threshold per ramp; 0 where no exit saves anything.

    Raises:
        ConfigError: If there are more than :data:`MAX_CANDIDATES` ways to share ``budget``.

    References:
        The problem: Apparate (SOSP'24), section 3.2.
    """
    size, ramps = errors.shape
    order = _order(errors)
    wrong = bitmask.pack(~agrees.T)
    steps = savings.T - jnp.concatenate([savings.T[1:], jnp.zeros_like(savings.T[:1])])
    steps = steps if steps.ndim == 1 else bitmask.pad(steps)
    levels, used = _plan(budget, ramps)
    prefixes = _Prefixes(
        bitmask.pack(jnp.arange(size)[None] < samples),
        jnp.zeros(1),
        jnp.zeros(1, jnp.int32),
        jnp.zeros((1, 0), jnp.int32),
    )
    for r, level in enumerate(levels):
        prefixes = _extend(prefixes, _at(order, r), wrong[r], steps[r], level.parent, level.wrong)
    rest = limit - used
    last = ramps - 1
    prefixes = _extend(prefixes, _at(order, last), wrong[last], steps[last], slice(None), rest)
    missed = jnp.where(rest >= 0, prefixes.missed, jnp.inf)
    best = jnp.argmin(jnp.where(missed == missed.min(), prefixes.wrong, _NEVER))
    keys = jnp.take_along_axis(order.keys, prefixes.positions[best][:, None], axis=1)[:, 0]
    thresholds = jnp.where(keys == _NEVER, OPEN, jax.lax.bitcast_convert_type(keys, jnp.float32))
    useful = (savings.reshape(-1, ramps) > 0).any(axis=0)
    return jnp.where(useful, thresholds, 0.0)


def _plan(budget: int, ramps: int) -> tuple[tuple[_Level, ...], NDArray[np.int32]]:
    """The tree of all ways to share ``budget`` over all ramps but the last, and what each used."""
    count = num_candidates(budget, ramps)
    if count > MAX_CANDIDATES:
        raise ConfigError(
            f"{count} ways to share {budget} wrong answers over {ramps} ramps, at most "
            f"{MAX_CANDIDATES} are searched: use method='greedy', fewer ramps or a smaller window"
        )
    levels = []
    used = np.zeros(1, np.int32)
    for _ in range(ramps - 1):
        children = budget - used + 1
        parent = np.repeat(np.arange(len(used), dtype=np.int32), children)
        first = np.repeat(np.cumsum(children) - children, children)
        wrong = (np.arange(len(parent)) - first).astype(np.int32)
        levels.append(_Level(parent, wrong))
        used = used[parent] + wrong
    return tuple(levels), used


def _order(errors: Float32[Array, "n r"]) -> _Order:
    """Sort every ramp's samples by error; those that cannot exit come last and are in no mask."""
    size = len(errors)
    bits = jax.lax.bitcast_convert_type(errors, jnp.int32) & _NEVER  # without the sign: -0.0 is 0.0
    keys = jnp.where(errors < OPEN, bits, _NEVER).T
    samples = jnp.argsort(keys, axis=1)
    keys = jnp.take_along_axis(keys, samples, axis=1)
    single = jnp.where((keys != _NEVER)[..., None], bitmask.singles(samples, size), jnp.uint32(0))
    below = jnp.cumsum(single, axis=1, dtype=jnp.uint32)  # the bits differ: a sum is an OR
    new = jnp.pad(keys[:, 1:] != keys[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    new = jnp.concatenate([new, keys[:, -1:] != _NEVER], axis=1)
    return _Order(
        keys=jnp.pad(keys, ((0, 0), (0, 1)), constant_values=_NEVER),
        clean=jax.lax.cummax(jnp.where(new, jnp.arange(size + 1), 0), axis=1),
        below=jnp.pad(below, ((0, 0), (1, 0), (0, 0))),
    )


def _at(order: _Order, ramp: int) -> _Order:
    return _Order(order.keys[ramp], order.clean[ramp], order.below[ramp])


def _extend(
    prefixes: _Prefixes,
    order: _Order,
    wrong: UInt32[Array, " words"],
    step: Float32[Array, "*weights"],
    parent: NDArray[np.int32] | slice,
    allowed: Int32[Array, " children"] | NDArray[np.int32],
) -> _Prefixes:
    """Give every prefix its threshold at one more ramp, for each number of wrong exits there."""
    here = prefixes.staying[parent]
    at_risk = here & wrong
    position = _largest_position(at_risk, order, allowed)
    leaving = order.below[position]
    staying = here & ~leaving
    return _Prefixes(
        staying,
        prefixes.missed[parent] + bitmask.weigh(staying, step),
        prefixes.wrong[parent] + bitmask.count(at_risk & leaving),
        jnp.concatenate([prefixes.positions[parent], position[:, None]], axis=1),
    )


def _largest_position(
    at_risk: UInt32[Array, "children words"],
    order: _Order,
    allowed: Int32[Array, " children"] | NDArray[np.int32],
) -> Int32[Array, " children"]:
    """The largest threshold that lets no more than ``allowed`` of the samples at risk out."""
    samples = order.keys.shape[0] - 1
    num_bits = samples.bit_length()

    def one_bit(i: Int32[Array, ""], found: Int32[Array, " children"]) -> jax.Array:
        tried = found + (1 << (num_bits - 1 - i))
        fits = bitmask.count(at_risk & order.below[jnp.minimum(tried, samples)]) <= allowed
        return jnp.where(fits & (tried <= samples), tried, found)

    none = jnp.zeros(at_risk.shape[0], jnp.int32)
    return order.clean[jax.lax.fori_loop(0, num_bits, one_bit, none)]
