"""Threshold tuning by beam search: where the exact search has too many candidates.

As the exact search, but of the prefixes with the same number of wrong answers only the best few
are kept at each ramp. What predicts the final saving of a prefix is what it missed so far, plus
what those who stay would miss with the later thresholds of a reference choice, plus the price of
the wrong answers that would make. The first reference shares the budget evenly; each pass takes
the last pass's choice as its reference, and the best of all passes is returned.

Sharp edges: not exact, and no bound is known beforehand. Of 360 synthetic windows on which the
exact search is possible (3 to 12 ramps, 5 to 60 wrong answers) it saved less than exact on 2, by
0.24 % at most (benchmarks/results/thresholds.json). With 12 ramps it takes seconds to compile.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, UInt32
from numpy.typing import NDArray

from apparate_jax.control import bitmask
from apparate_jax.control import prefixes as px
from apparate_jax.control.prefixes import Order, Prefixes
from apparate_jax.errors import ConfigError

WIDTH = 16
"""Prefixes kept for each number of wrong answers; fewer where the budget is large."""

PASSES = 3

MAX_BUDGET = 255
"""A larger budget is refused: the prefixes tried grow with its square."""

_MAX_CHILDREN = 20_000


class _Tree(NamedTuple):
    """How the prefixes kept at one ramp extend to those tried at the next (static).

    ``parent``, ``allowed`` and ``wrong`` are of each child: what it extends, how many wrong exits
    it adds, and how many it then has. ``rows[v]`` are the children with ``v`` wrong exits, filled
    up with the number of children.
    """

    parent: NDArray[np.int32]
    allowed: NDArray[np.int32]
    wrong: NDArray[np.int32]
    rows: NDArray[np.int32]
    width: int


class _Reference(NamedTuple):
    """A choice of thresholds: who would leave at each, the price of a wrong answer, the result."""

    gone: UInt32[Array, "r words"]
    price: Float32[Array, ""]
    positions: Int32[Array, " r"]
    missed: Float32[Array, ""]
    wrong: Int32[Array, ""]


@partial(jax.jit, static_argnames="budget")
def search(
    errors: Float32[Array, "n r"],
    agrees: Bool[Array, "n r"],
    savings: Float32[Array, " r"] | Float32[Array, "n r"],
    samples: Int32[Array, ""],
    limit: Int32[Array, ""],
    budget: int,
) -> Float32[Array, " r"]:
    """Thresholds that save much with at most ``limit`` wrong answers.

    Args:
        errors: Error of each sample at each ramp, 0..1, or NaN: never exits.
        agrees: Whether the ramp's answer is the original's.
        savings: What an exit saves, not negative and not increasing along the ramps.
        samples: Only so many of the first rows count.
        limit: Wrong answers allowed, at most ``budget``; below 0 nobody exits.
        budget: Static bound of ``limit``: one compiled program serves every smaller limit.

    Returns:
        One threshold per ramp; 0 where no exit saves anything.

    Raises:
        ConfigError: If ``budget`` is above :data:`MAX_BUDGET`.
    """
    order, steps = px.order_of(errors, agrees), px.steps_of(savings)
    first, tree = px.start(len(errors), samples), _tree(budget)
    most = jnp.asarray([bitmask.weigh(first.staying, step)[0] for step in steps]).sum()

    def refer(whole: Prefixes, index: int | jax.Array) -> _Reference:
        missed, positions = whole.missed[index], whole.positions[index]
        gone = order.below[jnp.arange(len(positions)), positions]
        price = (most - missed) / jnp.maximum(samples, 1)
        return _Reference(gone, price, positions, missed, whole.wrong[index])

    def one_pass(_: Any, state: tuple[_Reference, _Reference]) -> tuple[_Reference, _Reference]:
        best, last = state
        whole, valid = _pass(order, steps, first, limit, tree, last)
        found = refer(whole, px.best_of(whole, valid))
        fewer = (found.missed == best.missed) & (found.wrong < best.wrong)
        better = (found.missed < best.missed) | fewer
        return jax.tree.map(partial(jnp.where, better), found, best), found

    even = refer(_shared_evenly(order, steps, first, limit), 0)
    best, _ = jax.lax.fori_loop(0, PASSES, one_pass, (even, even))
    found = px.closed_where_useless(px.thresholds_of(order.keys, best.positions), savings)
    return jnp.where(limit >= 0, found, 0.0)


def _tree(budget: int) -> _Tree:
    if budget > MAX_BUDGET:
        raise ConfigError(
            f"a budget of {budget} wrong answers, at most {MAX_BUDGET} are searched by beam: use "
            "method='greedy' or a smaller window"
        )
    used, more = np.nonzero(np.tri(budget + 1, dtype=bool)[::-1])  # their sum is within the budget
    width = max(1, min(WIDTH, _MAX_CHILDREN // len(used)))
    kept = np.arange(width, dtype=np.int32)
    wrong = np.repeat(used + more, width).astype(np.int32)
    rows = np.full((budget + 1, (budget + 1) * width), len(wrong), np.int32)
    for total in range(budget + 1):
        children = np.flatnonzero(wrong == total)
        rows[total, : len(children)] = children
    parent = (used[:, None] * width + kept).reshape(-1).astype(np.int32)
    return _Tree(parent, np.repeat(more, width).astype(np.int32), wrong, rows, width)


def _shared_evenly(
    order: Order,
    steps: Float32[Array, "ramps ..."],
    prefixes: Prefixes,
    limit: Int32[Array, ""],
) -> Prefixes:
    """The one choice that gives every ramp its share of the limit."""
    ramps = len(steps)
    for r in range(ramps):
        share = (limit * (r + 1)) // ramps - prefixes.wrong
        prefixes = px.extend(prefixes, order, r, steps[r], slice(None), share)
    return prefixes


def _pass(
    order: Order,
    steps: Float32[Array, "ramps ..."],
    first: Prefixes,
    limit: Int32[Array, ""],
    tree: _Tree,
    reference: _Reference,
) -> tuple[Prefixes, Bool[Array, " prefixes"]]:
    """One beam search: the choices that are left at the end, and which of them count."""
    count = len(tree.rows) * tree.width
    kept: Prefixes = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), first)
    valid = jnp.arange(count) == 0
    for r in range(len(steps) - 1):
        tried = px.extend(kept, order, r, steps[r], tree.parent, tree.allowed)
        score = tried.missed + _later(tried.staying, order, steps, r, reference)
        # a child that lets fewer out than it may is the same as a sibling
        fits = valid[tree.parent] & (tried.wrong == tree.wrong) & (tree.wrong <= limit)
        score = jnp.append(jnp.where(fits, score, jnp.inf), jnp.inf)[tree.rows]
        least, column = jax.lax.top_k(-score, tree.width)
        chosen = jnp.take_along_axis(jnp.asarray(tree.rows), column, axis=1).reshape(-1)
        valid = jnp.isfinite(least).reshape(-1)
        chosen = jnp.where(valid, chosen, 0)
        kept = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], tried)
    rest = limit - kept.wrong
    last = len(steps) - 1
    return px.extend(kept, order, last, steps[last], slice(None), rest), valid & (rest >= 0)


def _later(
    staying: UInt32[Array, "prefixes words"],
    order: Order,
    steps: Float32[Array, "ramps ..."],
    ramp: int,
    reference: _Reference,
) -> Float32[Array, " prefixes"]:
    """What those who stay after ``ramp`` miss with the reference's later thresholds."""
    missed, wrong = jnp.zeros(len(staying)), jnp.zeros(len(staying), jnp.int32)
    for r in range(ramp + 1, len(steps)):
        leaving = staying & reference.gone[r]
        wrong += bitmask.count(leaving & order.wrong[r])
        staying = staying & ~leaving
        missed += bitmask.weigh(staying, steps[r])
    return missed + reference.price * wrong
