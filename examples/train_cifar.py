"""Train a ResNet-18 on CIFAR-10, for ramps to be tried on.

    python examples/train_cifar.py --train cifar10-train.parquet --test cifar10-test.parquet

Both files hold encoded pictures in the column ``image`` and numbers in ``label``, as Hugging Face's
image data sets do; without the options they are looked for in $APPARATE_DATA/images. Training ends
after ``--epochs``, or when ``--minutes`` are over, whichever comes first; the learning rate has
come down to zero by then. Leaves in runs/cifar: ``checkpoint``, ``stream.parquet`` (the test
pictures, shuffled) and ``card.json``.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import trained
from flax import nnx
from numpy.typing import NDArray
from pyarrow import parquet
from rich.progress import Progress

from apparate_jax.core import ImagePreprocess, Model
from apparate_jax.data import load_data
from apparate_jax.data.image import Pixels, decode_pixels
from apparate_jax.models.resnet import RESNET, ResNet, ResNetConfig

LABELS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SIZE = 32
SHIFT = 4
"""Pixels by which a picture is moved in training, at most."""
WARM_UP = 0.1
"""Share of training in which the learning rate rises."""


class Network(NamedTuple):
    """An NNX module in train mode, taken apart: its graph, parameters and running statistics."""

    graph: Any
    params: nnx.State
    stats: nnx.State


class Budget(NamedTuple):
    """How long training may take: optimiser steps and seconds."""

    steps: int
    seconds: float

    def used(self, step: int, seconds: float) -> float:
        """Share that is used up, by whichever of the two is nearer to its end."""
        return max(step / self.steps, seconds / self.seconds)


def rate_factor(used: float) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a cosine down to zero."""
    if used < WARM_UP:
        return used / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (used - WARM_UP) / (1.0 - WARM_UP)))


def read_pictures(path: Path, rows: int | None) -> tuple[Pixels, NDArray[np.int64]]:
    """Decoded pictures u8[rows, 32, 32, 3] and labels of a Parquet file."""
    table = parquet.read_table(path, columns=["image", "label"]).slice(0, rows)
    images = np.stack([decode_pixels(cell["bytes"]) for cell in table["image"].to_pylist()])
    return images, table["label"].to_numpy()


def augment(images: Pixels, rng: np.random.Generator) -> Pixels:
    """Move each picture by up to :data:`SHIFT` pixels and mirror half of them.

    Args:
        images: u8[batch, height, width, 3].
        rng: Where chance comes from.
    """
    count, height, width, _ = images.shape
    edge = (SHIFT, SHIFT)
    padded = np.pad(images, ((0, 0), edge, edge, (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    down, right = rng.integers(0, 2 * SHIFT + 1, (2, count))
    moved = windows[np.arange(count), down, right].transpose(0, 2, 3, 1)
    mirror = rng.random(count) < 0.5
    return np.where(mirror[:, None, None, None], moved[:, :, ::-1], moved)


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
        **_: Dilations and groups, which this network does not have.
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


def make_network(config: ResNetConfig, seed: int) -> Network:
    """A network with random weights, ready to be trained on this device."""
    module = nnx.eval_shape(lambda: ResNet(config, nnx.Rngs(0)))
    module.train()
    if jax.default_backend() == "cpu":
        for _, node in nnx.iter_graph(module):
            if isinstance(node, nnx.Conv):
                node.conv_general_dilated = as_products
    values = RESNET.make(replace(config, dtype="float32"), seed).params
    graph, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    return Network(graph, filled(params, values), filled(stats, values))


def filled(state: nnx.State, values: dict[str, Any]) -> nnx.State:
    """A state with the values that a model has under the same paths."""
    flat = nnx.to_flat_state(state)
    return nnx.from_flat_state([(k, v.replace(values["/".join(map(str, k))])) for k, v in flat])


def values_of(*states: nnx.State) -> dict[str, jax.Array]:
    """The reverse: arrays by path, as :attr:`apparate_jax.core.Model.params` has them."""
    flat = (item for state in states for item in nnx.to_flat_state(state))
    return {"/".join(map(str, path)): variable.get_value() for path, variable in flat}


def optimiser(decay: float) -> optax.GradientTransformation:
    """SGD with Nesterov's momentum at a rate of 1; weight decay on kernels only."""

    def is_kernel(params: Any) -> Any:
        return jax.tree.map(lambda x: x.ndim > 1, params)

    return optax.chain(optax.add_decayed_weights(decay, is_kernel), optax.trace(0.9, nesterov=True))


def make_step(graph: Any, image: ImagePreprocess, decay: float, dtype: str) -> Callable[..., Any]:
    """``step(params, stats, memory, rate, pixels, labels) -> params, stats, memory, loss``.

    Kernels stay float32 and are used in ``dtype``; batch norms are float32 whatever it is.
    """
    mean, std = jnp.asarray(image.mean), jnp.asarray(image.std)

    def loss(params: Any, stats: Any, pixels: Any, labels: Any) -> tuple[jax.Array, Any]:
        used = {True: jnp.dtype(dtype), False: jnp.float32}
        cast = jax.tree.map(lambda x: x.astype(used[x.ndim > 1]), params)
        module = nnx.merge(graph, cast, stats, copy=True)
        logits = module((pixels - mean) / std).astype(jnp.float32)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each.mean(), nnx.split(module, nnx.BatchStat, ...)[1]

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params: Any, stats: Any, memory: Any, rate: Any, pixels: Any, labels: Any) -> Any:
        found = jax.value_and_grad(loss, has_aux=True)(params, stats, pixels, labels)
        (value, stats), gradients = found
        updates, memory = optimiser(decay).update(gradients, memory, params)
        moved = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        return moved, stats, memory, value

    return step


def batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows of whole batches, for ever; every epoch in another order."""
    while True:
        yield from rng.permutation(count)[: count // batch * batch].reshape(-1, batch)


def train(
    config: ResNetConfig, args: argparse.Namespace, images: Pixels, labels: NDArray[np.int64]
) -> tuple[dict[str, jax.Array], int]:
    """Parameters of a model that was trained within the budget, and the steps it took."""
    network = make_network(config, args.seed)
    params, stats = network.params, network.stats
    memory = optimiser(args.decay).init(params)
    image = RESNET.make(config).image
    step = make_step(network.graph, image, args.decay, config.dtype)
    steps = args.epochs * (len(labels) // args.batch)
    budget = Budget(steps, math.inf if args.minutes is None else args.minutes * 60)
    rng = np.random.default_rng(args.seed)
    start, done, used = time.monotonic(), 0, 0.0
    with Progress() as progress:
        task = progress.add_task("training", total=1.0)
        for rows in batches(len(labels), args.batch, rng):
            rate = np.float32(args.rate * rate_factor(used))
            pixels = augment(images[rows], rng)
            params, stats, memory, loss = step(params, stats, memory, rate, pixels, labels[rows])
            done += 1
            told = f"epoch {done * args.batch / len(labels):.2f}, loss {float(loss):.3f}"
            used = budget.used(done, time.monotonic() - start)
            progress.update(task, completed=min(used, 1.0), description=told)
            if used >= 1.0:
                break
    return values_of(params, stats), done


def write_stream(test: Path, path: Path, seed: int) -> None:
    """The test pictures in another order."""
    table = parquet.read_table(test)
    order = np.random.default_rng(seed).permutation(len(table))
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.take(order), path)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--minutes", type=float, help="end after this time at the latest")
    parser.add_argument("--rows", type=int, help="train on so many pictures only")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument(
        "--small-stem", action="store_true", help="15 times the work, more accurate"
    )
    parser.add_argument("--mixed", action="store_true", help="compute in bfloat16, for GPUs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for part in ("train", "test"):
        given = getattr(args, part)
        found = trained.data_file(parser, f"--{part}", given, f"images/cifar10-{part}.parquet")
        setattr(args, part, found)
    return args


def main() -> None:
    """Train, measure, save."""
    args = parse()
    start = time.monotonic()
    sizes = {**RESNET.zoo["resnet-18"], "image_size": SIZE, "num_labels": len(LABELS)}
    config = RESNET.configure({**sizes, "small_stem": args.small_stem})
    images, labels = read_pictures(args.train, args.rows)
    training = replace(config, dtype="bfloat16" if args.mixed else "float32")
    params, steps = train(training, args, images, labels)
    seconds = time.monotonic() - start
    made = RESNET.make(config)
    model: Model = replace(made, name="resnet-18-cifar10", params=params, labels=LABELS)
    write_stream(args.test, args.out / "stream.parquet", args.seed)
    data = load_data(args.out / "stream.parquet", model)
    logits = trained.logits_of(model, data, "test pictures")
    accuracy = float((logits.argmax(axis=1) == data.labels).mean())
    card = {
        "model": model.name,
        "test_accuracy": round(accuracy, 4),
        "test_pictures": len(data),
        "epochs": round(steps * args.batch / len(labels), 2),
        "seconds": round(seconds),
        "settings": trained.settings_of(args),
    }
    trained.save(args.out, model, card)
    print(f"accuracy on {len(data)} test pictures: {accuracy:.4f} ({seconds:.0f} s), in {args.out}")


if __name__ == "__main__":
    main()
