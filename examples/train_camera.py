"""Teach a network whether anything is in view of a fixed camera.

    python examples/train_camera.py one-by-one-person-detection.mp4
    python examples/train_camera.py CLIP.mp4 --architecture resnet-50 --image-size 112 --minutes 6

Learns from the first part of the clip, each frame in another light and framing; nobody labels, see
:mod:`motion`. ``efficientnet-lite0``: a published backbone stays as it is, and a new head of two
classes is fitted by logistic regression on its pooled features. ``vgg-16``: published convolutions
stay as they are, and the dense layers are trained. ``resnet-18`` and ``resnet-50``: all is trained,
from random weights. Where the published weights come from: :mod:`published`.

Frames are seen whole, squeezed to a square. States the accuracy on the rest of the clip, and on
the stream. Leaves in ``--out``: ``checkpoint``, ``card.json``, and ``stream.mp4`` unless another
``--stream`` is named. The stream is what comes after the part that was learnt from, as it is; with
``--stream-minutes`` again and again, each time in another light and framing, until it is so long.
Beside it comes what ramps are to be trained on, ``stream-ramps.mp4``: the part that was learnt from
(``apparate train-ramps --vary 3`` shows it in other light and framing, too). Videos that are there
with the same settings are kept: they are the same for every architecture.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import clips
import jax
import jax.numpy as jnp
import motion
import networks
import numpy as np
import optax
import published
import trained
import training
from numpy.typing import NDArray

from apparate_jax.core import ImagePreprocess, Model
from apparate_jax.data import load_data
from apparate_jax.data.image import resize_and_crop
from apparate_jax.models.efficientnet import EFFICIENTNET

ARCHITECTURES = ("efficientnet-lite0", "resnet-18", "resnet-50", "vgg-16")
LABELS = ("empty", "in view")
KERNEL, BIAS = "classifier/kernel", "classifier/bias"
STEPS = 500
ROUNDS = 4
"""How often a backbone sees each frame that a head is fitted on, each time changed."""
SHOWN = 800
"""Frames of the stream that its accuracy is stated on, evenly spread."""
BATCH = 16
RATE = 0.02
"""Of a ResNet on so few frames."""
RATE_DENSE = 1e-3
"""Of a VGG's dense layers."""
Floats = NDArray[np.float32]
States = motion.States


class Head(NamedTuple):
    """A dense layer: kernel f32[width, classes] and bias f32[classes]."""

    kernel: Floats
    bias: Floats


def seen(frame: clips.Pixels, change: clips.Change, mirrored: bool, how: Any) -> clips.Pixels:
    """A frame in another light and framing, as large as a model takes it."""
    pixels = clips.changed(frame, change)
    return resize_and_crop(np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels, how)


def make_draw(frames: list[clips.Pixels], how: ImagePreprocess) -> training.Draw:
    """Draws these frames, each in a random light and framing, half of them mirrored."""

    def draw(rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
        drawn = [
            seen(frames[row], clips.random_change(rng), rng.random() < 0.5, how) for row in rows
        ]
        return np.stack(drawn)

    return draw


def whole(model: Model) -> Model:
    """A model that sees all of a picture, whatever its proportions."""
    assert model.image is not None
    return replace(model, image=replace(model.image, resize=None))


def with_head(backbone: Model, head: Head) -> Model:
    """The network with another last layer."""
    config = EFFICIENTNET.configure(
        {**backbone.source["config"], "num_labels": head.kernel.shape[1]}
    )
    last = {KERNEL: jnp.asarray(head.kernel), BIAS: jnp.asarray(head.bias)}
    return replace(EFFICIENTNET.make(config), params={**backbone.params, **last})


def pooled_features(backbone: Model, draw: training.Draw, rows: NDArray[np.int64]) -> Floats:
    """What the last layer sees of these frames when they are drawn, f32[rows, width]."""
    width = backbone.params[KERNEL].shape[0]
    same = Head(np.eye(width, dtype=np.float32), np.zeros(width, np.float32))
    model = with_head(backbone, same)
    image = model.image
    assert image is not None
    apply = jax.jit(lambda params, pixels: model.apply(params, training.model_input(pixels, image)))
    rng = np.random.default_rng(0)
    found = []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        # The last batch is filled up: another shape would be another compilation.
        filled = draw(np.resize(some, BATCH), rng)
        found.append(np.asarray(apply(model.params, filled))[: len(some)])
    return np.concatenate(found)


def fit_head(features: Floats, states: States, decay: float) -> Head:
    """Logistic regression on standardised features, which are folded into the layer.

    Args:
        features: f32[frames, width].
        states: bool[frames], class 1 or 0.
        decay: Of the kernel, L2.
    """
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-3
    scaled = jnp.asarray((features - mean) / std)
    targets = jax.nn.one_hot(states.astype(np.int32), len(LABELS))
    start = (jnp.zeros((features.shape[1], len(LABELS))), jnp.zeros(len(LABELS)))
    optimiser = optax.adam(1e-2)

    def loss(layer: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = scaled @ layer[0] + layer[1]
        return optax.softmax_cross_entropy(logits, targets).mean() + decay * (layer[0] ** 2).sum()

    @jax.jit
    def fit(layer: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        def step(_: int, carry: tuple) -> tuple:
            layer, memory = carry
            updates, memory = optimiser.update(jax.grad(loss)(layer), memory)
            return optax.apply_updates(layer, updates), memory

        return jax.lax.fori_loop(0, STEPS, step, (layer, optimiser.init(layer)))[0]

    weights, offset = map(np.asarray, fit(start))
    kernel = weights / std[:, None]
    return Head(kernel, offset - mean @ kernel)


def fitted(args: argparse.Namespace, frames: list[clips.Pixels], states: States) -> Model:
    """EfficientNet-Lite0 with a head that was fitted on these frames."""
    backbone = published.efficientnet(args.image_size)
    how = whole(backbone).image
    assert how is not None
    rows = np.tile(np.arange(len(frames)), ROUNDS)
    features = pooled_features(backbone, make_draw(frames, how), rows)
    return with_head(backbone, fit_head(features, states[rows], args.decay))


def begin(args: argparse.Namespace) -> networks.Start:
    """What training of a whole network, or of all its dense layers, begins with."""
    what = (args.architecture, args.image_size, len(LABELS))
    if args.architecture == "vgg-16":
        start = networks.vgg(*what, width=args.width, frozen_stacks=5, seed=args.seed)
        return replace(start, rate=RATE_DENSE)
    return replace(networks.resnet(*what, decay=5e-4, seed=args.seed), rate=RATE)


def learnt(args: argparse.Namespace, frames: list[clips.Pixels], states: States) -> Model:
    """A network that was trained on these frames by gradient descent."""
    start = begin(args)
    model = start.trained({})
    how = whole(model).image
    assert how is not None
    seconds = math.inf if args.minutes is None else args.minutes * 60
    budget = training.Budget(args.steps, seconds)
    recipe = training.Recipe(start.optimiser, start.rate, BATCH, budget, args.seed)
    labels = states.astype(np.int64)
    params, _ = training.train(start.network(), how, make_draw(frames, how), labels, recipe)
    return replace(model, params=params)


def kept(path: Path, wanted: dict[str, Any], write: Callable[[], object]) -> dict[str, Any]:
    """Write a video, and how it was made beside it, unless both are there; says how."""
    beside = path.with_suffix(".json")
    if path.is_file() and beside.is_file() and json.loads(beside.read_text()) == wanted:
        return wanted
    beside.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write()
    beside.write_text(json.dumps(wanted, indent=2) + "\n")
    return wanted


def stream_of(args: argparse.Namespace, first: int, frames: int) -> dict[str, Any]:
    """Write the stream unless it is there; says how it was made.

    Args:
        args: The command line.
        first: Frame that comes after those that were learnt from.
        frames: Of the clip.
    """
    wanted: dict[str, Any] = {"video": args.video.name, "from_frame": first}
    if args.stream_minutes is None:
        args.stream.parent.mkdir(parents=True, exist_ok=True)
        return {**wanted, "begins": clips.cut(args.video, first, args.stream), "loops": 1}
    needed = args.stream_minutes * 60 * float(clips.rate_of(args.video))
    loops = math.ceil(needed / (frames - first))
    wanted |= {"loops": loops, "height": args.stream_height, "seed": args.seed}
    wanted["frames"] = loops * (frames - first)
    changes = clips.changes(loops, args.seed)
    return kept(
        args.stream,
        wanted,
        lambda: clips.loop(args.video, first, args.stream, changes, args.stream_height),
    )


def ramps_of(args: argparse.Namespace, end: int) -> dict[str, Any]:
    """Write what ramps are to be trained on unless it is there; says how it was made.

    Args:
        args: The command line.
        end: Frame that comes after those that were learnt from.
    """
    path = args.stream.with_name(f"{args.stream.stem}-ramps.mp4")
    height = None if args.stream_minutes is None else args.stream_height
    wanted = {"video": args.video.name, "to_frame": end, "height": height}
    as_it_is = [clips.Change()]
    return kept(path, wanted, lambda: clips.loop(args.video, 0, path, as_it_is, height, end))


def accuracies(
    model: Model, args: argparse.Namespace, states: States, first: int, made: dict[str, Any]
) -> dict[str, Any]:
    """How many answers on the rest of the clip, and on the stream, are the label."""
    rest = np.arange(first, len(states))
    clip = load_data(args.video, model)
    answers = trained.logits_of(model, clip, "rest of the clip", rest).argmax(axis=1) == 1
    found = {
        "rest_accuracy": round(float((answers == states[first:]).mean()), 4),
        "rest_answer_flips": motion.flips(answers),
    }
    if args.stream_minutes is None:
        return found
    rows = np.unique(np.linspace(0, made["frames"] - 1, SHOWN).round().astype(np.int64))
    stream = load_data(args.stream, model)
    answers = trained.logits_of(model, stream, "stream", rows).argmax(axis=1) == 1
    expected = np.tile(states[first:], made["loops"])[rows]
    return {**found, "stream_accuracy": round(float((answers == expected).mean()), 4)}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("video", type=Path, help="of a fixed camera, with nothing in view at first")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--out", type=Path, default=Path("runs/camera"))
    parser.add_argument("--train-frac", type=float, default=0.3, help="learn from this first part")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--decay", type=float, default=0.1, help="of a fitted head, L2")
    parser.add_argument("--width", type=int, default=64, help="of a VGG's hidden dense layers")
    parser.add_argument(
        "--steps", type=int, default=400, help="of training, unless a head is fitted"
    )
    parser.add_argument("--minutes", type=float, help="end training after these")
    parser.add_argument("--stream", type=Path, help="where, instead of in --out")
    parser.add_argument(
        "--stream-minutes", type=float, help="repeat the stream, changed, for so long"
    )
    parser.add_argument("--stream-height", type=int, default=216, help="of repeated frames, even")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.stream = args.stream or args.out / "stream.mp4"
    if not args.video.is_file():
        parser.error(f"no file at {args.video}")
    if not 0.0 < args.train_frac < 1.0:
        parser.error("--train-frac is expected within 0..1")
    if args.stream_height < 2 or args.stream_height % 2:
        parser.error("--stream-height is expected to be even")
    return args


def main() -> None:
    """Label, learn, measure, save."""
    args = parse()
    start = time.monotonic()
    states = motion.in_view(motion.read_grey(args.video))
    print(f"{len(states)} frames, {states.mean():.1%} with something in view, ", end="")
    print(f"the label flips {motion.flips(states)} times")
    count = round(len(states) * args.train_frac)
    made = stream_of(args, count, len(states))
    ramps = ramps_of(args, count)
    frames = list(itertools.islice(clips.frames(args.video, height=args.stream_height), count))
    learn: Callable[..., Model] = fitted if args.architecture == ARCHITECTURES[0] else learnt
    model = whole(learn(args, frames, states[:count]))
    model = replace(model, name=f"{args.architecture}-camera", labels=LABELS)
    seconds = time.monotonic() - start
    rest = states[count:]
    card = {
        "model": model.name,
        "frames": len(states),
        "in_view_frac": round(float(states.mean()), 4),
        "label_flips": motion.flips(states),
        "trained_frames": count,
        **accuracies(model, args, states, count, made),
        "rest_majority_frac": round(float(max(rest.mean(), 1 - rest.mean())), 4),
        "stream": made,
        "ramps": ramps,
        "seconds": round(seconds),
        "settings": trained.settings_of(args),
    }
    trained.save(args.out, model, card)
    told = ", ".join(f"{k} {v}" for k, v in card.items() if k.endswith("_accuracy"))
    print(f"{told}, in {args.out}")


if __name__ == "__main__":
    main()
