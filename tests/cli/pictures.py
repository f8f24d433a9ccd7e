"""A model of pictures for the command line: ``tests.cli.pictures:model``."""

import jax.numpy as jnp
import numpy as np

from apparate_jax.core import ImagePreprocess, InputSpec
from apparate_jax.models import from_function

SIZE, CLASSES = 8, 3
REFERENCE = "tests.cli.pictures:model"


def _forward(params, x):
    x = jnp.tanh(jnp.einsum("bhwc,cd->bhwd", x, params["first"]))
    x = jnp.tanh(jnp.einsum("bhwc,cd->bhwd", x, params["second"]))
    return x.mean((1, 2)) @ params["head"]


def model():
    """Two layers on every pixel, then the mean: what colour is it?"""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(0, 1.0, shape).astype(np.float32)

    params = {
        "first": normal(3, 8),
        "second": normal(8, 8),
        "head": normal(8, CLASSES),
    }
    inputs = [InputSpec("image", (SIZE, SIZE, 3), "float32", -1.0, 1.0)]
    image = ImagePreprocess(SIZE, SIZE, resize=SIZE, mean=(127.5,) * 3, std=(127.5,) * 3)
    return from_function(_forward, params, inputs=inputs, name="colours", image=image)


def blank():
    """The same, but it does not say how pictures become its input."""
    made = model()
    return from_function(_forward, made.params, inputs=made.inputs, name="colours")
