"""What training begins with: ResNets with random weights, VGGs with published convolutions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import optax
import published
import training
from flax import nnx

from apparate_jax.core import Model
from apparate_jax.models.family import Family
from apparate_jax.models.resnet import RESNET, ResNet
from apparate_jax.models.vgg import VGG, VGGClassifier

ARCHITECTURES = ("resnet-18", "resnet-50", "vgg-11", "vgg-16")
RATE_RANDOM = 0.05
"""Of SGD, from random weights."""
RATE_PUBLISHED = 2e-4
"""Of Adam, from published weights."""


@dataclass(frozen=True)
class Start:
    """What training begins with.

    Attributes:
        family: Of the model.
        module: Makes the network of a configuration.
        config: Of the model.
        params: To begin with.
        frozen: Paths of those that stay as they are.
        optimiser: What suits them, at a rate of 1.
        rate: What suits the optimiser.
    """

    family: Family
    module: Callable[[Any], nnx.Module]
    config: Any
    params: dict[str, jax.Array]
    frozen: frozenset[str]
    optimiser: optax.GradientTransformation
    rate: float

    def network(self, dtype: str = "float32") -> training.Network:
        """Ready to be trained, computing in ``dtype``."""
        config = replace(self.config, dtype=dtype)
        frozen = self.frozen.__contains__
        return training.take_apart(lambda: self.module(config), self.params, frozen)

    def trained(self, params: dict[str, jax.Array], **facts: Any) -> Model:
        """The model with what was learnt."""
        return replace(self.family.make(self.config), params=params, **facts)


def resnet(
    architecture: str, image_size: int, classes: int, *, decay: float, seed: int, **sizes: Any
) -> Start:
    """A ResNet with random weights, for SGD with this weight decay."""
    fixed = {**RESNET.zoo[architecture], "image_size": image_size, "num_labels": classes}
    config = RESNET.configure({**fixed, **sizes})
    return Start(
        RESNET,
        lambda config: ResNet(config, nnx.Rngs(0)),
        config,
        RESNET.make(config, seed).params,
        frozenset(),
        training.momentum(decay),
        RATE_RANDOM,
    )


def vgg(
    architecture: str, image_size: int, classes: int, *, width: int, frozen_stacks: int, seed: int
) -> Start:
    """A VGG with published convolutions and a random classifier with layers of this width."""
    model = published.vgg(architecture, image_size, classes, width, seed)
    config = VGG.configure(model.source["config"])
    return Start(
        VGG,
        lambda config: VGGClassifier(config, nnx.Rngs(0)),
        config,
        model.params,
        published.in_stacks(model, frozen_stacks),
        training.adam(),
        RATE_PUBLISHED,
    )
