"""Small models with ramps, for engine tests: real programs, compiled and run."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.core import InputSpec, Model
from apparate_jax.graph import Program, trace
from apparate_jax.models import from_function
from apparate_jax.ramps.heads import Ramp
from apparate_jax.serve.programs import Programs
from apparate_jax.serve.route import Segment

WIDTH, CLASSES = 6, 3


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.8, shape).astype(np.float32)


def mlp(between: Callable[[jax.Array], jax.Array] = lambda x: x, seed: int = 0) -> Model:
    """Three dense layers; ``between`` is applied before the last one."""
    params = [_normal(seed + 1, WIDTH, 8), _normal(seed + 2, 8, 8), _normal(seed + 3, 8, CLASSES)]

    def fn(params, x):
        x = jnp.tanh(x @ params[0])
        x = jnp.tanh(x @ params[1])
        return between(x) @ params[2]

    return from_function(fn, params, inputs=[InputSpec("x", (WIDTH,), "float32", -1.0, 1.0)])


def waiting(gate: threading.Event) -> Callable[[jax.Array], jax.Array]:
    """What is given, once ``gate`` is set: the device waits for the host."""

    def wait(x):
        assert gate.wait(60)
        return x

    return lambda x: jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def gated(gate: threading.Event) -> Model:
    """The same model, but the last layer waits on the host until ``gate`` is set."""
    return mlp(waiting(gate))


def deeper(gate: threading.Event) -> Model:
    """Five dense layers, the last of which waits until ``gate`` is set."""
    shapes = [(WIDTH, 8), (8, 8), (8, 8), (8, 8), (8, CLASSES)]
    params = [_normal(seed, *shape) for seed, shape in enumerate(shapes)]
    held = waiting(gate)

    def fn(params, x):
        for layer in params[:-1]:
            x = jnp.tanh(x @ layer)
        return held(x) @ params[-1]

    return from_function(fn, params, inputs=[InputSpec("x", (WIDTH,), "float32", -1.0, 1.0)])


def ramps(program: Program, seed: int = 7) -> list[Ramp]:
    """A random ramp at every site."""
    return [
        Ramp(
            site=site.index,
            name=site.name,
            kind="identity",
            params={
                "kernel": jnp.asarray(3 * _normal(seed + site.index, 8, CLASSES)),
                "bias": jnp.zeros(3),
            },
            agreement=0.0,
            temperature=1.0,
        )
        for site in program.sites
    ]


def programs(model: Model, batch_sizes: tuple[int, ...] = (1, 2, 4), **options: Any) -> Programs:
    """Programs of a model with a ramp at every site, nothing compiled yet."""
    program = trace(model.apply, model.params, *model.example_inputs(2))
    return Programs(program, model, ramps(program), batch_sizes, **options)


def broken(segment: Segment) -> Segment:
    """A program that the device fails to run."""

    def call(*arguments: Any) -> Any:
        raise ValueError("the device is gone")

    return replace(segment, call=call)


def example(seed: int = 0) -> dict[str, np.ndarray]:
    """One input."""
    return {"x": _normal(100 + seed, WIDTH)}


def answers(made: Programs, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Logits of every ramp and of the original model, computed apart from the engine."""
    hidden = np.tanh(x @ made.model.params[0])
    values = [hidden, np.tanh(hidden @ made.model.params[1])]
    early = [v @ made.ramps[s].params["kernel"] for s, v in enumerate(values)]
    return early, values[1] @ made.model.params[2]
