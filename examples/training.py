"""The loop that trains the networks of these examples on pictures, within a budget of time.

A network is an NNX module, taken apart: what is trained, and the rest, which the forward pass may
still change (running statistics) or not (layers that are frozen). On CPUs convolutions are trained
as matrix products (:func:`as_products`). An optimiser is any transformation of optax at a rate of
1; the learning rate comes from the share of the budget that is used up.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray
from rich.progress import Progress

from apparate_jax.core import ImagePreprocess

WARM_UP = 0.1
"""Share of training in which the learning rate rises."""

Draw = Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.uint8]]
"""``draw(rows, rng)``: pictures u8[batch, height, width, 3] of these rows, augmented by chance."""


class Network(NamedTuple):
    """An NNX module in train mode, taken apart.

    Attributes:
        graph: Of the module.
        params: What is trained.
        rest: Running statistics and frozen parameters.
        chosen: Filter that tells the one from the other.
    """

    graph: Any
    params: nnx.State
    rest: nnx.State
    chosen: Any


class Budget(NamedTuple):
    """How long training may take: optimiser steps and seconds."""

    steps: int
    seconds: float

    def used(self, step: int, seconds: float) -> float:
        """Share that is used up, by whichever of the two is nearer to its end."""
        return max(step / self.steps, seconds / self.seconds)


class Recipe(NamedTuple):
    """How to train.

    Attributes:
        optimiser: At a rate of 1.
        rate: The learning rate at its peak.
        batch: Pictures per step.
        budget: When to end.
        seed: Of the order of pictures and their augmentation.
        dtype: In which kernels are used; they stay float32.
    """

    optimiser: optax.GradientTransformation
    rate: float
    batch: int
    budget: Budget
    seed: int = 0
    dtype: str = "float32"


def rate_factor(used: float) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a cosine down to zero."""
    if used < WARM_UP:
        return used / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (used - WARM_UP) / (1.0 - WARM_UP)))


def taps(size: int, kernel: int, stride: int, padding: tuple[int, int]) -> tuple[int, list[int]]:
    """Length of a convolution's output, and the kernel's positions that ever meet the input."""
    length = (size + sum(padding) - kernel) // stride + 1
    first = [tap - padding[0] for tap in range(kernel)]
    used = [i for i, at in enumerate(first) if at < size and at + stride * (length - 1) >= 0]
    return length, used


def as_products(
    image: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **_: Any
) -> jax.Array:
    """A convolution as one matrix product: a CPU takes its gradients four times as fast as XLA's.

    Args:
        image: f[batch, height, width, channels].
        kernel: f[height, width, channels, features].
        strides: Down and right.
        padding: (before, after) of both axes.
        **_: Dilations and groups, which these networks do not have.
    """
    rows, down = taps(image.shape[1], kernel.shape[0], strides[0], padding[0])
    columns, right = taps(image.shape[2], kernel.shape[1], strides[1], padding[1])
    padded = jnp.pad(image, ((0, 0), *padding, (0, 0)))
    height, width = strides[0] * (rows - 1) + 1, strides[1] * (columns - 1) + 1
    seen = [
        padded[:, i : i + height : strides[0], j : j + width : strides[1]]
        for i in down
        for j in right
    ]
    patches = jnp.concatenate(seen, axis=-1)
    used = kernel[down[0] : down[-1] + 1, right[0] : right[-1] + 1]
    return patches @ used.reshape(-1, kernel.shape[-1])


def take_apart(
    make: Callable[[], nnx.Module],
    values: dict[str, jax.Array],
    frozen: Callable[[str], bool] = lambda path: False,
) -> Network:
    """A network ready to be trained on this device.

    Args:
        make: Makes the module; only its shapes are used.
        values: Parameters by path, as :attr:`apparate_jax.core.Model.params` has them.
        frozen: Whether the parameter at a path stays as it is.
    """

    def chosen(path: tuple[Any, ...], value: Any) -> bool:
        return isinstance(value, nnx.Param) and not frozen("/".join(map(str, path)))

    module = nnx.eval_shape(make)
    module.train()
    if jax.default_backend() == "cpu":
        for _, node in nnx.iter_graph(module):
            if isinstance(node, nnx.Conv):
                node.conv_general_dilated = as_products
    graph, params, rest = nnx.split(module, chosen, ...)
    return Network(graph, filled(params, values), filled(rest, values), chosen)


def filled(state: nnx.State, values: dict[str, Any]) -> nnx.State:
    """A state with copies of the values that a model has under the same paths."""
    flat = nnx.to_flat_state(state)
    # Training gives these arrays away, step by step; the model keeps its own.
    return nnx.from_flat_state(
        [(k, v.replace(jnp.array(values["/".join(map(str, k))]))) for k, v in flat]
    )


def values_of(*states: nnx.State) -> dict[str, jax.Array]:
    """The reverse: arrays by path, as :attr:`apparate_jax.core.Model.params` has them."""
    flat = (item for state in states for item in nnx.to_flat_state(state))
    return {"/".join(map(str, path)): variable.get_value() for path, variable in flat}


def momentum(decay: float) -> optax.GradientTransformation:
    """SGD with Nesterov's momentum at a rate of 1; weight decay on kernels only."""

    def is_kernel(params: Any) -> Any:
        return jax.tree.map(lambda x: x.ndim > 1, params)

    return optax.chain(optax.add_decayed_weights(decay, is_kernel), optax.trace(0.9, nesterov=True))


def adam() -> optax.GradientTransformation:
    """Adam at a rate of 1, for weights that were trained before."""
    return optax.scale_by_adam()


def model_input(pixels: jax.Array, image: ImagePreprocess) -> jax.Array:
    """Pictures u8[batch, height, width, 3] of the right size, as a model takes them."""
    ordered = pixels[..., ::-1] if image.channels == "bgr" else pixels
    return (ordered - jnp.asarray(image.mean)) / jnp.asarray(image.std)


def make_step(
    network: Network, image: ImagePreprocess, optimiser: optax.GradientTransformation, dtype: str
) -> Callable[..., Any]:
    """``step(params, rest, memory, rate, pixels, labels) -> params, rest, memory, loss``.

    Kernels stay float32 and are used in ``dtype``; batch norms are float32 whatever it is.
    """

    def loss(params: Any, rest: Any, pixels: Any, labels: Any) -> tuple[jax.Array, Any]:
        used = {True: jnp.dtype(dtype), False: jnp.float32}
        cast = jax.tree.map(lambda x: x.astype(used[x.ndim > 1]), params)
        module = nnx.merge(network.graph, cast, rest, copy=True)
        logits = module(model_input(pixels, image)).astype(jnp.float32)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each.mean(), nnx.split(module, network.chosen, ...)[2]

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params: Any, rest: Any, memory: Any, rate: Any, pixels: Any, labels: Any) -> Any:
        found = jax.value_and_grad(loss, has_aux=True)(params, rest, pixels, labels)
        (value, rest), gradients = found
        updates, memory = optimiser.update(gradients, memory, params)
        moved = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        return moved, rest, memory, value

    return step


def batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows of whole batches, for ever; every epoch in another order."""
    while True:
        yield from rng.permutation(count)[: count // batch * batch].reshape(-1, batch)


def train(
    network: Network, image: ImagePreprocess, draw: Draw, labels: NDArray[np.int64], recipe: Recipe
) -> tuple[dict[str, jax.Array], int]:
    """Train within the budget; the clock starts when the first step is compiled.

    Returns:
        Parameters by path, and how many steps were taken.
    """
    params, rest = network.params, network.rest
    memory = recipe.optimiser.init(params)
    step = make_step(network, image, recipe.optimiser, recipe.dtype)
    rng = np.random.default_rng(recipe.seed)
    start, done, used = time.monotonic(), 0, 0.0
    with Progress() as progress:
        task = progress.add_task("training", total=1.0)
        for rows in batches(len(labels), recipe.batch, rng):
            rate = np.float32(recipe.rate * rate_factor(used))
            params, rest, memory, loss = step(
                params, rest, memory, rate, draw(rows, rng), labels[rows]
            )
            done += 1
            told = f"epoch {done * recipe.batch / len(labels):.2f}, loss {float(loss):.3f}"
            if done == 1:
                start = time.monotonic()
            used = recipe.budget.used(done, time.monotonic() - start)
            progress.update(task, completed=min(used, 1.0), description=told)
            if used >= 1.0:
                break
    return values_of(params, rest), done
