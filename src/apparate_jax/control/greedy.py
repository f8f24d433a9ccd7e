"""The paper's threshold tuning: greedy hill climbing with growing and shrinking steps.

Thresholds start at 0 with a step of 0.1 each. Every round tries one more step on each ramp alone
and takes the ramp that saves most per accuracy lost; its step doubles. A ramp whose trial breaks
the accuracy constraint has its step halved, down to 0.01 (Apparate, SOSP'24, section 3.2). The
climb ends when every ramp is fully open, or breaks the constraint with its smallest step. The
authors' artifact starts at 0.01 and goes down to 0.001.

The paper leaves open what a trial that loses no accuracy scores: here it counts as a loss of a
millionth of an answer, so that such a trial wins over all others, the largest saving among them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

_NO_LOSS = 1e-6


class Steps(NamedTuple):
    """Step sizes of the climb, in units of the error.

    Attributes:
        first: Where every ramp starts.
        smallest: Where halving ends.
    """

    first: float
    smallest: float


PAPER = Steps(0.1, 0.01)
ARTIFACT = Steps(0.01, 0.001)


class _Climb(NamedTuple):
    thresholds: Float32[Array, " r"]
    steps: Float32[Array, " r"]
    saving: Float32[Array, ""]
    wrong: Int32[Array, ""]
    climbing: Bool[Array, ""]


@jax.jit
def climb(
    errors: Float32[Array, "n r"],
    agrees: Bool[Array, "n r"],
    savings: Float32[Array, " r"] | Float32[Array, "n r"],
    samples: Int32[Array, ""],
    limit: Int32[Array, ""],
    first_step: float | Float32[Array, ""] = PAPER.first,
    smallest_step: float | Float32[Array, ""] = PAPER.smallest,
) -> Float32[Array, " r"]:
    """Thresholds that the paper's search finds with at most ``limit`` wrong answers.

    Args:
        errors: Error of each sample at each ramp, 0..1, or NaN: never exits.
        agrees: Whether the ramp's answer is the original's.
        savings: What an exit saves.
        samples: Only so many of the first rows count.
        limit: Wrong answers allowed; below 0 nobody exits.
        first_step: Step of every ramp at the start.
        smallest_step: Where halving ends.

    Returns:
        One threshold per ramp.

    References:
        Apparate (SOSP'24), section 3.2.
    """
    ramps = errors.shape[1]
    valid = jnp.arange(len(errors)) < samples

    def attempt(thresholds: jax.Array) -> tuple[jax.Array, jax.Array]:
        below = (errors < thresholds) & valid[:, None]
        first = below & (jnp.cumsum(below, axis=1) == 1)
        return jnp.where(first, savings, 0.0).sum(), (first & ~agrees).sum(dtype=jnp.int32)

    def one_round(state: _Climb) -> _Climb:
        raised = jnp.minimum(state.thresholds + state.steps, 1.0)
        trials = jnp.where(jnp.eye(ramps, dtype=bool), raised, state.thresholds)
        saving, wrong = jax.vmap(attempt)(trials)
        can_rise = state.thresholds < 1.0
        breaks = wrong > limit
        lost = jnp.maximum(wrong - state.wrong, 0) + _NO_LOSS
        score = jnp.where(can_rise & ~breaks, (saving - state.saving) / lost, -jnp.inf)
        best = jnp.argmax(score)
        taken = score[best] > -jnp.inf
        chosen = (jnp.arange(ramps) == best) & taken
        halved = jnp.maximum(state.steps / 2, smallest_step)
        shrinks = can_rise & breaks & (state.steps > smallest_step)
        return _Climb(
            thresholds=jnp.where(chosen, raised, state.thresholds),
            steps=jnp.where(chosen, state.steps * 2, jnp.where(breaks, halved, state.steps)),
            saving=jnp.where(taken, saving[best], state.saving),
            wrong=jnp.where(taken, wrong[best], state.wrong),
            climbing=taken | shrinks.any(),
        )

    start = _Climb(
        thresholds=jnp.zeros(ramps, jnp.float32),
        steps=jnp.full(ramps, first_step, jnp.float32),
        saving=jnp.zeros((), jnp.float32),
        wrong=jnp.zeros((), jnp.int32),
        climbing=jnp.ones((), bool),
    )
    return jax.lax.while_loop(lambda state: state.climbing, one_round, start).thresholds
