"""What the peers serve: a checkpoint's original model, jitted, padded to fixed batch sizes.

The sizes are those of `apparate serve`; it is what a user of JAX would write by hand. Runs in a
peer's own environment.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.checkpoint import load_checkpoint

BATCH_SIZES = (1, 2, 4, 8)
LARGEST = BATCH_SIZES[-1]


class Classifier:
    """The forward pass, compiled for every batch size before the first request."""

    def __init__(self, place: str) -> None:
        model = load_checkpoint(place).model
        self._lengths = [spec.shape[0] for spec in model.inputs or ()]
        self._params = jax.device_put(model.params)
        self._apply = jax.jit(model.apply)
        for size in BATCH_SIZES:
            self.logits(*(np.ones((size, length), np.int32) for length in self._lengths))

    def logits(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Logits f32[n, classes] of inputs i32[n, length], padded to the next batch size."""
        count = len(inputs[0])
        size = next(size for size in BATCH_SIZES if size >= count)
        if size > count:
            pad = ((0, size - count), (0, 0))
            inputs = tuple(np.pad(array, pad, mode="edge") for array in inputs)
        return np.asarray(self._apply(self._params, *inputs))[:count]

    def answers(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Logits of raw requests: each the inputs' rows one after the other, little endian."""
        rows = np.stack([np.frombuffer(body, "<i4") for body in bodies])
        ends = np.cumsum(self._lengths)[:-1]
        return [row.tobytes() for row in self.logits(*np.split(rows, ends, axis=1))]
