"""A packed answer: error, label and logits in one small array, so that one copy brings it home.

Column 0 is the error (1 - top probability), column 1 the predicted class (exact in float32 up to
2^24 classes), the rest are the logits. Logits that are NaN give a NaN error, and no comparison with
a threshold lets a NaN out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32
from numpy.typing import NDArray


def pack_answer(logits: Float[Array, "batch classes"]) -> Float32[Array, "batch columns"]:
    """Pack logits with their error and predicted class.

    Args:
        logits: f[batch, classes].

    Returns:
        f32[batch, 2 + classes].
    """
    scores = logits.astype(jnp.float32)
    error = 1.0 - jnp.max(jax.nn.softmax(scores, axis=-1), axis=-1)
    label = jnp.argmax(scores, axis=-1).astype(jnp.float32)
    return jnp.concatenate([error[:, None], label[:, None], scores], axis=1)


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
