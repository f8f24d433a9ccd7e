"""A packed answer: error, label and logits in one small array, so that one copy brings it home.

Column 0 is the error (1 - top probability), column 1 the predicted class (exact in float32 up to
2^24 classes), the rest are the logits.

The error is the sum of the *other* classes' probabilities, not a difference from 1: confident
answers keep distinct errors down to 1e-38 instead of multiples of 6e-8, and errors that are equal
cannot be told apart by a threshold.

Sharp edges: logits that are NaN or infinite give a NaN error, and no comparison with a threshold
lets a NaN out.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32
from numpy.typing import NDArray


def answer_error(logits: Float[Array, "*batch classes"]) -> Float32[Array, "*batch"]:
    """1 - top softmax probability, computed without cancellation.

    With ``z`` the distances to the largest logit and ``r`` the sum of ``exp(-z)`` over all classes
    but the top one, the error is ``r / (1 + r)``.

    Args:
        logits: f[..., classes].

    Returns:
        f32[...], 0..1; NaN where a logit is NaN or the largest is infinite.

    >>> [round(float(e), 4) for e in answer_error(jnp.asarray([[0.0, 0.0], [9.0, 0.0]]))]
    [0.5, 0.0001]
    """
    scores = logits.astype(jnp.float32)
    top = jnp.argmax(scores, axis=-1, keepdims=True)
    shares = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    at_top = jnp.arange(scores.shape[-1]) == top
    rest = jnp.sum(jnp.where(at_top, 0.0, shares), axis=-1)
    # exp(0) - 1 = 0 unless the largest logit is NaN or infinite, which must not be hidden
    return rest / (1.0 + rest) + (jnp.max(shares, axis=-1) - 1.0)


def answer_entropy(logits: Float[Array, "*batch classes"]) -> Float32[Array, "*batch"]:
    """Entropy of the softmax over the entropy of a guess among all classes.

    With ``z`` the distances to the largest logit, the entropy is ``log(sum exp(-z)) + E[z]``.
    BranchyNet (ICPR 2016) and DeeBERT (ACL 2020) leave by it.

    Args:
        logits: f[..., classes].

    Returns:
        f32[...], 0..1; NaN where a logit is NaN or infinite.

    >>> [round(float(e), 3) for e in answer_entropy(jnp.asarray([[0.0, 0.0], [30.0, 0.0]]))]
    [1.0, 0.0]
    """
    scores = logits.astype(jnp.float32)
    below = jnp.max(scores, axis=-1, keepdims=True) - scores
    shares = jnp.exp(-below)
    at_top = jnp.arange(scores.shape[-1]) == jnp.argmax(scores, axis=-1, keepdims=True)
    rest = jnp.sum(jnp.where(at_top, 0.0, shares), axis=-1)
    entropy = jnp.log1p(rest) + jnp.sum(shares * below, axis=-1) / (1.0 + rest)
    return jnp.minimum(entropy / math.log(max(2, scores.shape[-1])), 1.0)


CRITERIA = {"error": answer_error, "entropy": answer_entropy}
"""Scores by which an answer may leave."""


def pack_answer(
    logits: Float[Array, "batch classes"], criterion: str = "error"
) -> Float32[Array, "batch columns"]:
    """Pack logits with their score and predicted class.

    Args:
        logits: f[batch, classes].
        criterion: The score in place of the error: a name of :data:`CRITERIA`.

    Returns:
        f32[batch, 2 + classes].
    """
    scores = logits.astype(jnp.float32)
    label = jnp.argmax(scores, axis=-1).astype(jnp.float32)
    return jnp.concatenate([CRITERIA[criterion](scores)[:, None], label[:, None], scores], axis=1)


def unpack_answer(
    packed: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Read a packed answer on the host.

    Args:
        packed: f32[batch, 2 + classes].

    Returns:
        Error f32[batch], predicted class i32[batch], logits f32[batch, classes].
    """
    return packed[:, 0], packed[:, 1].astype(np.int32), packed[:, 2:]
