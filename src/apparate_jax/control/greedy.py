"""The paper's threshold tuning: greedy hill climbing with growing and shrinking steps.

Thresholds start at 0 with a step of 0.1 each. Every round tries one more step on each ramp alone
and takes the ramp that saves most per accuracy lost; its step doubles. A ramp whose trial breaks
the accuracy constraint has its step halved, down to 0.01 (Apparate, SOSP'24, section 3.2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

FIRST_STEP = 0.1
SMALLEST_STEP = 0.01
_NO_LOSS = 1e-6  # an accuracy loss of nothing still has to be divided by


class _Climb(NamedTuple):
    thresholds: Float32[Array, " r"]
    steps: Float32[Array, " r"]
    saving: Float32[Array, ""]
    wrong: Int32[Array, ""]
    climbing: Bool[Array, ""]


def exits_and_wrong(
    errors: Float32[Array, "n r"],
    agrees: Bool[Array, "n r"],
    savings: Float32[Array, "n r"],
    thresholds: Float32[Array, " r"],
) -> tuple[Bool[Array, "n r"], Float32[Array, ""], Int32[Array, ""]]:
    """Who leaves where, what that saves in total, and how many of those answers are wrong."""
    below = errors < thresholds
    first = below & (jnp.cumsum(below, axis=1) == 1)
    saving = jnp.where(first, savings, 0.0).sum()
    return first, saving, (first & ~agrees).sum(dtype=jnp.int32)


@jax.jit
def climb(
    errors: Float32[Array, "n r"],
    agrees: Bool[Array, "n r"],
    savings: Float32[Array, "n r"],
    limit: Int32[Array, ""],
) -> Float32[Array, " r"]:
    """Thresholds that the paper's search finds with at most ``limit`` wrong answers."""
    ramps = errors.shape[1]

    def attempt(thresholds: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, saving, wrong = exits_and_wrong(errors, agrees, savings, thresholds)
        return saving, wrong

    def one_round(state: _Climb) -> _Climb:
        raised = jnp.minimum(state.thresholds + state.steps, 1.0)
        trials = jnp.where(jnp.eye(ramps, dtype=bool), raised[None], state.thresholds[None])
        saving, wrong = jax.vmap(attempt)(trials)
        room = state.thresholds < 1.0
        breaks = wrong > limit
        lost = jnp.maximum((wrong - state.wrong).astype(jnp.float32), 0.0) + _NO_LOSS
        score = jnp.where(room & ~breaks, (saving - state.saving) / lost, -jnp.inf)
        best = jnp.argmax(score)
        taken = score[best] > -jnp.inf
        chosen = (jnp.arange(ramps) == best) & taken
        halved = jnp.maximum(state.steps / 2, SMALLEST_STEP)
        can_shrink = room & breaks & (state.steps > SMALLEST_STEP)
        steps = jnp.where(chosen, state.steps * 2, jnp.where(breaks, halved, state.steps))
        return _Climb(
            thresholds=jnp.where(chosen, raised, state.thresholds),
            steps=steps,
            saving=jnp.where(taken, saving[best], state.saving),
            wrong=jnp.where(taken, wrong[best], state.wrong),
            climbing=taken | can_shrink.any(),
        )

    start = _Climb(
        thresholds=jnp.zeros(ramps, jnp.float32),
        steps=jnp.full(ramps, FIRST_STEP, jnp.float32),
        saving=jnp.float32(0.0),
        wrong=jnp.int32(0),
        climbing=jnp.asarray(True),
    )
    return jax.lax.while_loop(lambda state: state.climbing, one_round, start).thresholds
