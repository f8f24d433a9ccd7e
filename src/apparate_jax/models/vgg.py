"""VGG as an image classifier, in Flax NNX.

Stacks of 3x3 convolutions, each stack halved by max pooling, then three dense layers (Simonyan and
Zisserman, 2014, arXiv 1409.1556), with batch norms or without. Nothing jumps over a layer, so every
layer that does real work has a site: ``stack_2/conv_0``.

The dense layers read a grid of 7x7 whatever the picture's size, by adaptive average pooling in
PyTorch's sense (:func:`adaptive_mean`), and as torchvision stores it: channel by channel.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from apparate_jax.core import ImagePreprocess, Model
from apparate_jax.errors import ModelError
from apparate_jax.models import vision
from apparate_jax.models.family import Family, Tensor, batch_norm, conv, dense


@dataclass(frozen=True, slots=True)
class VGGConfig:
    """Sizes of a VGG.

    Attributes:
        depths: Convolutions per stack.
        widths: Channels per stack.
        batch_norm: A batch norm after every convolution.
        grid: Height and width of what the dense layers read.
        classifier_width: Width of the two hidden dense layers.
        caffe_colors: Inputs are BGR with the mean subtracted, as in the original release and in
            Keras, instead of torchvision's normalised RGB.
        image_size: Height and width of the input.
        num_labels: Classes.
        dtype: Of parameters and computation; batch norms keep float32 parameters.
    """

    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    batch_norm: bool = False
    grid: int = 7
    classifier_width: int = 4096
    caffe_colors: bool = False
    image_size: int = 224
    num_labels: int = 1000
    dtype: vision.Dtype = "float32"

    def __post_init__(self) -> None:
        vision.check_config(self.image_size, self.num_labels, self.dtype)
        if not self.depths or len(self.depths) != len(self.widths) or min(self.depths) < 1:
            raise ModelError(
                f"depths are {self.depths} and widths {self.widths}, expected as many of both, "
                "each at least 1"
            )
        if self.image_size < 2 ** len(self.depths):
            raise ModelError(
                f"image_size is {self.image_size}, expected at least {2 ** len(self.depths)}: each "
                f"of the {len(self.depths)} stacks halves it"
            )


def adaptive_mean(x: jax.Array, grid: int) -> jax.Array:
    """Average f[batch, height, width, channels] to f[batch, grid, grid, channels].

    Cell ``i`` of ``grid`` is the mean of rows ``floor(i n / grid)`` to ``ceil((i + 1) n / grid)``
    of ``n``, likewise for columns; cells overlap where ``grid`` does not divide ``n``.
    """
    if x.shape[1:3] == (grid, grid):
        return x
    rows, columns = (jnp.asarray(_shares(n, grid), x.dtype) for n in x.shape[1:3])
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns, precision=exact)


def _shares(size: int, grid: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """f32[grid, size]: the share of each position in each cell."""
    shares = np.zeros((grid, size), np.float32)
    for i in range(grid):
        start, stop = i * size // grid, -(-(i + 1) * size // grid)
        shares[i, start:stop] = 1 / (stop - start)
    return shares


class Layer(nnx.Module):
    """A convolution, its batch norm if there is one, and a rectifier."""

    def __init__(self, config: VGGConfig, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
        self.conv = vision.conv(inputs, outputs, 3, rngs, config.dtype, bias=True)
        self.norm = nnx.data(None)
        if config.batch_norm:
            self.norm = vision.batch_norm(outputs, rngs, config.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transform f[batch, height, width, channels]."""
        y = self.conv(x)
        return jax.nn.relu(y if self.norm is None else self.norm(y))


class VGGClassifier(nnx.Module):
    """VGG: ``image f[batch, height, width, 3] -> logits f[batch, classes]``."""

    def __init__(self, config: VGGConfig, rngs: nnx.Rngs) -> None:
        self.dtype = config.dtype
        self.grid = config.grid
        self.depths = config.depths
        layers, inputs = [], 3
        for depth, width in zip(config.depths, config.widths, strict=True):
            for _ in range(depth):
                layers.append(Layer(config, inputs, width, rngs))
                inputs = width
        self.layers = nnx.List(layers)
        hidden = config.classifier_width
        sizes = [inputs * config.grid**2, hidden, hidden, config.num_labels]
        self.classifier = nnx.List(
            [vision.linear(a, b, rngs, config.dtype) for a, b in itertools.pairwise(sizes)]
        )

    def __call__(self, image: jax.Array) -> jax.Array:
        """Classify f[batch, height, width, 3]; returns logits f[batch, classes]."""
        x = vision.compute_in(image, self.dtype)
        layers = iter(self.layers)
        for stack, depth in enumerate(self.depths):
            for index in range(depth):
                with jax.named_scope(f"stack_{stack}/conv_{index}"):
                    x = next(layers)(x)
                    if index == depth - 1:
                        x = nnx.max_pool(x, (2, 2), (2, 2))
        with jax.named_scope("grid"):
            x = adaptive_mean(x, self.grid).transpose(0, 3, 1, 2).reshape(len(x), -1)
        for index, layer in enumerate(self.classifier):
            with jax.named_scope(f"dense_{index}"):
                x = layer(x)
                if index < len(self.classifier) - 1:
                    x = jax.nn.relu(x)
        return x


def preprocess(config: VGGConfig) -> ImagePreprocess:
    """How pictures become the input."""
    usual = vision.imagenet(config.image_size)
    if not config.caffe_colors:
        return usual
    mean = (103.939, 116.779, 123.68)
    return replace(usual, mean=mean, std=(1.0, 1.0, 1.0), channels="bgr")


def build(config: VGGConfig, seed: int | None) -> Model:
    """A VGG; see :attr:`apparate_jax.models.family.Family.build`."""
    return vision.build(lambda rngs: VGGClassifier(config, rngs), seed, "vgg", preprocess(config))


def tensors(config: VGGConfig) -> dict[str, Tensor]:
    """Where the parameters stand in a state dict of torchvision.

    There the layers of all stacks are numbered in one row, rectifiers and poolings included.
    """
    names: dict[str, Tensor] = {}
    position = layer = 0
    for depth in config.depths:
        for _ in range(depth):
            ours = f"layers/{layer}"
            names |= conv(f"{ours}/conv", f"features.{position}")
            if config.batch_norm:
                names |= batch_norm(f"{ours}/norm", f"features.{position + 1}")
            position += 3 if config.batch_norm else 2
            layer += 1
        position += 1
    for i, place in enumerate((0, 3, 6)):
        names |= dense(f"classifier/{i}", f"classifier.{place}")
    return names


_DEPTHS = {"vgg-11": (1, 1, 2, 2, 2), "vgg-13": (2, 2, 2, 2, 2), "vgg-16": (2, 2, 3, 3, 3)}

VGG = Family(
    kind="vgg",
    config=VGGConfig,
    build=build,
    tensors=tensors,
    head="classifier.6.weight",
    ignored=("num_batches_tracked",),
    zoo={
        **{name: {"depths": depths} for name, depths in _DEPTHS.items()},
        **{f"{name}-bn": {"depths": d, "batch_norm": True} for name, d in _DEPTHS.items()},
    },
)
