"""Exact threshold tuning: enumerate how the budget of wrong answers is shared out over the ramps.

For a given number of wrong exits at each ramp, the best threshold at a ramp is the largest one that
lets no more wrong samples out among those that reach it: raising a threshold without a new wrong
exit only moves samples to an earlier exit, which saves at least as much, and can only take wrong
exits away from later ramps. So the optimum is among the ways to share ``B`` wrong answers over
``R`` ramps. The last ramp may always use what is left, which leaves ``C(B + R - 1, R - 1)``.

They are expanded ramp by ramp, every prefix once and all prefixes of a level together (see
:mod:`~apparate_jax.control.prefixes`). Several limits share everything but the last ramp.

Sharp edges: one program is compiled for each window size, number of ramps and largest budget, and
number of limits.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32
from numpy.typing import NDArray

from apparate_jax.control import prefixes as px
from apparate_jax.control.prefixes import OPEN as OPEN
from apparate_jax.errors import ConfigError

MAX_CANDIDATES = 200_000
"""More ways to share the budget than this are refused: use beam or greedy, or fewer ramps."""


class _Level(NamedTuple):
    """How the prefixes of one ramp extend those before it (static)."""

    parent: NDArray[np.int32]
    wrong: NDArray[np.int32]


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
        limit: Wrong answers allowed, at most ``budget``; below 0 nobody exits.
        budget: Static bound of ``limit``: one compiled program serves every smaller limit.

    Returns:
        One threshold per ramp; 0 where no exit saves anything.

    Raises:
        ConfigError: If there are more than :data:`MAX_CANDIDATES` ways to share ``budget``.

    References:
        The problem: Apparate (SOSP'24), section 3.2.
    """
    found: Float32[Array, "1 r"] = ladder(errors, agrees, savings, samples, limit[None], budget)
    return found[0]


@partial(jax.jit, static_argnames="budget")
def ladder(
    errors: Float32[Array, "n r"],
    agrees: Bool[Array, "n r"],
    savings: Float32[Array, " r"] | Float32[Array, "n r"],
    samples: Int32[Array, ""],
    limits: Int32[Array, " k"],
    budget: int,
) -> Float32[Array, "k r"]:
    """As :func:`search` for several limits at once: they differ at the last ramp only.

    Args:
        errors: See :func:`search`.
        agrees: See :func:`search`.
        savings: See :func:`search`.
        samples: See :func:`search`.
        limits: Wrong answers allowed, each at most ``budget``; below 0 nobody exits.
        budget: Static bound of all limits that one compiled program serves.

    Returns:
        One row of thresholds per limit.

    Raises:
        ConfigError: If there are more than :data:`MAX_CANDIDATES` ways to share ``budget``.
    """
    ramps = errors.shape[1]
    order, steps = px.order_of(errors, agrees), px.steps_of(savings)
    levels, used = plan(budget, ramps)
    prefixes = px.start(len(errors), samples)
    for r, level in enumerate(levels):
        prefixes = px.extend(prefixes, order, r, steps[r], level.parent, level.wrong)

    def last(limit: Int32[Array, ""]) -> Float32[Array, " r"]:
        rest = limit - used
        whole = px.extend(prefixes, order, ramps - 1, steps[-1], slice(None), rest)
        best = px.best_of(whole, rest >= 0)
        found = px.thresholds_of(order.keys, whole.positions[best])
        return jnp.where(limit >= 0, found, 0.0)

    found = jax.lax.map(last, limits)
    return jax.vmap(px.closed_where_useless, (0, None))(found, savings)


def plan(budget: int, ramps: int) -> tuple[tuple[_Level, ...], NDArray[np.int32]]:
    """The tree of all ways to share ``budget`` over all ramps but the last, and what each used.

    Raises:
        ConfigError: If there are more than :data:`MAX_CANDIDATES`.
    """
    count = num_candidates(budget, ramps)
    if count > MAX_CANDIDATES:
        raise ConfigError(
            f"{count} ways to share {budget} wrong answers over {ramps} ramps, at most "
            f"{MAX_CANDIDATES} are searched: use method='auto', 'beam' or 'greedy', fewer ramps or "
            "a smaller window"
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
