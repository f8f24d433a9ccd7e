"""Grid search over thresholds: the reference that the paper measures its greedy search against.

Every combination of equal steps from 0 (never exits) to 1 (lets everyone out), 0.1 apart: the
paper's smallest sensible grid. Of combinations within the budget, the one that saves most; of
equals, the fewest wrong answers, then the lowest thresholds.

Sharp edges: it cannot see between its levels, and errors are below 1 - 1/classes, so with two
classes half of the levels are alike. The work grows with ``LEVELS ** R``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from apparate_jax.control import bitmask, prefixes
from apparate_jax.errors import ConfigError

LEVELS = 11
"""Levels per ramp: 0, 0.1, ... 1."""

MAX_COMBINATIONS = 2_000_000
"""More combinations than this are refused: up to six ramps fit."""

_CHUNK = 4096


@jax.jit
def scan(
    errors: Float32[Array, "n r"],
    agrees: Bool[Array, "n r"],
    savings: Float32[Array, " r"] | Float32[Array, "n r"],
    samples: Int32[Array, ""],
    limit: Int32[Array, ""],
) -> Float32[Array, " r"]:
    """Thresholds of the grid that save most with at most ``limit`` wrong answers.

    Args:
        errors: Error of each sample at each ramp, 0..1, or NaN: never exits.
        agrees: Whether the ramp's answer is the original's.
        savings: What an exit saves, not negative and not increasing along the ramps.
        samples: Only so many of the first rows count.
        limit: Wrong answers allowed; below 0 nobody exits.

    Returns:
        One threshold per ramp.

    Raises:
        ConfigError: If there are more than :data:`MAX_COMBINATIONS`.

    References:
        Apparate (SOSP'24), section 3.2.
    """
    size, ramps = errors.shape
    count = LEVELS**ramps
    if count > MAX_COMBINATIONS:
        raise ConfigError(
            f"a grid of {LEVELS} levels over {ramps} ramps has {count} combinations, at most "
            f"{MAX_COMBINATIONS} are searched: use method='auto', or fewer ramps"
        )
    levels = jnp.asarray(np.linspace(0.0, 1.0, LEVELS, dtype=np.float32))
    below = jax.vmap(bitmask.pack)(errors.T[:, None] < levels[:, None])
    wrong, steps = bitmask.pack(~agrees.T), prefixes.steps_of(savings)
    valid = bitmask.pack(jnp.arange(size)[None] < samples)
    places = LEVELS ** jnp.arange(ramps - 1, -1, -1, dtype=jnp.int32)

    def attempt(first: Int32[Array, ""]) -> tuple[jax.Array, jax.Array, jax.Array]:
        index = jnp.minimum(first + jnp.arange(min(_CHUNK, count)), count - 1)
        staying = jnp.broadcast_to(valid, (len(index), valid.shape[1]))
        missed, lost = jnp.zeros(len(index)), jnp.zeros(len(index), jnp.int32)
        for r in range(ramps):
            leaving = staying & below[r, index // places[r] % LEVELS]
            staying = staying & ~leaving
            missed += bitmask.weigh(staying, steps[r])
            lost += bitmask.count(leaving & wrong[r])
        missed = jnp.where(lost <= limit, missed, jnp.inf)
        best = jnp.argmin(jnp.where(missed == missed.min(), lost, prefixes.NEVER))
        return missed[best], lost[best], index[best]

    missed, lost, index = jax.lax.map(attempt, jnp.arange(0, count, _CHUNK, dtype=jnp.int32))
    best = jnp.argmin(jnp.where(missed == missed.min(), lost, prefixes.NEVER))
    found = levels[index[best] // places % LEVELS]
    return jnp.where(limit >= 0, found, 0.0)
