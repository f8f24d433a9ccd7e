"""Models for the command line, by reference: ``tests.cli.tiny:mlp`` and ones that go wrong."""

import signal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from apparate_jax.core import InputSpec, Model
from apparate_jax.models import from_function

WIDTH, CLASSES = 6, 3
REFERENCE = "tests.cli.tiny:mlp"


def _normal(seed, *shape):
    return np.random.default_rng(seed).normal(0, 0.8, shape).astype(np.float32)


def _forward(params, x):
    x = jnp.tanh(x @ params["first"])
    x = jnp.tanh(x @ params["second"])
    return x @ params["head"]


def mlp(hidden=8):
    """Three dense layers, two sites."""
    params = {
        "first": _normal(1, WIDTH, hidden),
        "second": _normal(2, hidden, hidden),
        "head": _normal(3, hidden, CLASSES),
    }
    inputs = [InputSpec("x", (WIDTH,), "float32", -1.0, 1.0)]
    return from_function(_forward, params, inputs=inputs, name="tiny", labels=("a", "b", "c"))


def nan():
    """The same with weights that are no numbers."""
    model = mlp()
    return Model(
        model.name,
        model.apply,
        {**model.params, "head": np.full_like(model.params["head"], np.nan)},
        model.inputs,
    )


def undescribed():
    """Its inputs are not known."""
    return from_function(_forward, mlp().params, name="undescribed")


def single_layer():
    """No place for a ramp."""
    inputs = [InputSpec("x", (WIDTH,), "float32")]
    return from_function(lambda p, x: x @ p, _normal(1, WIDTH, CLASSES), inputs=inputs)


def misshapen():
    """Its layers do not fit each other."""
    model = mlp()
    params = {**model.params, "second": _normal(2, 5, 5)}
    return from_function(_forward, params, inputs=model.inputs)


def fails():
    """A factory with a bug."""
    raise RuntimeError("the weights server is down")


def nothing():
    """Forgot to return the model."""


def module_alone():
    """A module without a description of its inputs."""
    return nnx.Linear(2, 2, rngs=nnx.Rngs(0))


NUMBER = 3


def _shaped(shape):
    model = mlp()
    return Model(model.name, model.apply, model.params, (InputSpec("x", shape((6,)), "float32"),))


def misbuilt():
    """Its description breaks the code that shows it."""

    class Shape(tuple):
        def __iter__(self):
            raise ZeroDivisionError

    return _shaped(Shape)


def interrupted():
    """Ctrl-C comes while it is shown, in code that makes another error of it as JAX's caches do."""

    class Shape(tuple):
        def __iter__(self):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as error:
                text = repr(error)
            raise ZeroDivisionError(text)

    return _shaped(Shape)


def wider():
    """The model after its author changed it."""
    return mlp(9)
