"""Exact threshold tuning by enumerating how the budget of wrong answers is shared out.

For a given number ``k[r]`` of wrong exits at each ramp, the best threshold at ramp ``r`` is the
largest one that lets no more than ``k[r]`` wrong samples out among those that reach it: raising a
threshold without a new wrong exit only moves samples to an earlier exit, which saves at least as
much, and can only take wrong exits away from later ramps. So the optimum is among the ways to share
``B`` wrong answers over ``R`` ramps. The last ramp may always use what is left, which leaves
``C(B + R - 1, R - 1)`` of them, and neighbours share their prefixes: ramp by ramp, each prefix is
expanded once, all of them at a time.

Errors that are equal cannot be separated: a threshold is the error of the first wrong sample that
must stay, and exits are strictly below it.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from apparate_jax.errors import ConfigError

MAX_CANDIDATES = 200_000
"""More ways to share the budget than this are refused: use greedy, or fewer ramps."""

OPEN = 1.0
"""The threshold that lets everyone out: an error is at most 1 - 1/classes."""


class Level(NamedTuple):
    """How the prefixes of one ramp follow from those before it (static).

    Attributes:
        parent: i32[prefixes], index of the prefix that each one extends.
        wrong: i32[prefixes], wrong answers that this ramp may let out.
    """

    parent: np.ndarray
    wrong: np.ndarray


def num_candidates(budget: int, ramps: int) -> int:
    """How many ways there are to share ``budget`` wrong answers over ``ramps``."""
    return math.comb(budget + ramps - 1, ramps - 1)


def plan_levels(budget: int, ramps: int) -> tuple[Level, ...]:
    """The prefix tree of all ways to share ``budget`` over all ramps but the last.

    Raises:
        ConfigError: If there are more than :data:`MAX_CANDIDATES`.
    """
    count = num_candidates(budget, ramps)
    if count > MAX_CANDIDATES:
        raise ConfigError(
            f"{count} ways to share {budget} wrong answers over {ramps} ramps, at most "
            f"{MAX_CANDIDATES} are searched: use method='greedy', fewer ramps or a shorter window"
        )
    levels = []
    used = np.zeros(1, np.int32)
    for _ in range(ramps - 1):
        free = budget - used + 1
        parent = np.repeat(np.arange(len(used)), free)
        first = np.repeat(np.cumsum(free) - free, free)
        wrong = np.arange(len(parent)) - first
        levels.append(Level(parent.astype(np.int32), wrong.astype(np.int32)))
        used = used[parent] + wrong
    return tuple(levels)


class _Prefixes(NamedTuple):
    """How far each prefix has come: who is still in, saved so far, thresholds, wrong answers."""

    inside: Bool[Array, "prefixes n"]
    saving: Float32[Array, " prefixes"]
    thresholds: Float32[Array, "prefixes r"]
    used: Int32[Array, " prefixes"]


@partial(jax.jit, static_argnames=("budget",))
def search(
    errors: Float32[Array, "n r"],
    agrees: Bool[Array, "n r"],
    savings: Float32[Array, "n r"],
    limit: Int32[Array, ""],
    budget: int,
) -> Float32[Array, " r"]:
    """Thresholds that save most with at most ``limit`` wrong answers.

    Args:
        errors: Error of each sample at each ramp; infinite rows never exit.
        agrees: Whether the ramp's answer is the original's.
        savings: What an exit saves, not increasing along the ramps.
        limit: Wrong answers allowed, at most ``budget``.
        budget: Static bound of ``limit``: one compiled program serves every smaller limit.

    Returns:
        One threshold per ramp.
    """
    ramps = errors.shape[1]
    prefixes = _Prefixes(
        inside=jnp.isfinite(errors).any(axis=1)[None],
        saving=jnp.zeros(1, jnp.float32),
        thresholds=jnp.zeros((1, 0), jnp.float32),
        used=jnp.zeros(1, jnp.int32),
    )
    for ramp, level in enumerate(plan_levels(budget, ramps)):
        wrong_allowed = jnp.asarray(level.wrong)
        prefixes = _extend(
            prefixes,
            errors[:, ramp],
            agrees[:, ramp],
            savings[:, ramp],
            level.parent,
            wrong_allowed,
        )
    last = ramps - 1
    everyone = np.arange(prefixes.used.shape[0])
    rest = limit - prefixes.used
    prefixes = _extend(prefixes, errors[:, last], agrees[:, last], savings[:, last], everyone, rest)
    allowed = prefixes.used <= limit
    best = jnp.argmax(jnp.where(allowed & (rest >= 0), prefixes.saving, -1.0))
    return prefixes.thresholds[best]


def _extend(
    prefixes: _Prefixes,
    errors: Float32[Array, " n"],
    agrees: Bool[Array, " n"],
    savings: Float32[Array, " n"],
    parent: np.ndarray,
    wrong_allowed: Int32[Array, " children"],
) -> _Prefixes:
    """Expand every prefix by one ramp, for each number of wrong answers that it may let out."""
    order = jnp.argsort(errors)
    ascending = jnp.append(errors[order], jnp.inf)
    wrong = prefixes.inside[:, order] & ~agrees[order]
    count = jnp.cumsum(wrong, axis=1, dtype=jnp.int32)
    # The first position at which one wrong sample too many would leave; its error is the threshold.
    position = (count[parent] <= wrong_allowed[:, None]).sum(axis=1)
    threshold = jnp.minimum(ascending[position], OPEN)
    inside = prefixes.inside[parent]
    leaves = inside & (errors[None] < threshold[:, None])
    return _Prefixes(
        inside=inside & ~leaves,
        saving=prefixes.saving[parent] + jnp.where(leaves, savings[None], 0.0).sum(axis=1),
        thresholds=jnp.concatenate([prefixes.thresholds[parent], threshold[:, None]], axis=1),
        used=prefixes.used[parent] + wrong_allowed,
    )
