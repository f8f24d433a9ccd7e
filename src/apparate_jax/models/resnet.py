"""ResNet as an image classifier, in Flax NNX.

Residual networks (He et al., 2015, arXiv 1512.03385) with basic or bottleneck blocks; in a
bottleneck the 3x3 convolution strides ("v1.5"), as published weights expect. Sites read ``stem``
and ``stage_2/block_0``: inside of a block the shortcut jumps over every value.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
from flax import nnx

from apparate_jax.core import Model
from apparate_jax.errors import ModelError
from apparate_jax.models import vision
from apparate_jax.models.family import (
    Family,
    Settings,
    Tensor,
    Tensors,
    batch_norm,
    conv,
    dense,
)

SQUEEZE = 4
"""How many times wider a bottleneck's ends are than its middle."""


@dataclass(frozen=True, slots=True)
class ResNetConfig:
    """Sizes of a ResNet, under the names of Hugging Face's ``config.json``.

    Attributes:
        layer_type: ``"basic"`` (two 3x3 convolutions) or ``"bottleneck"`` (1x1, 3x3, 1x1).
        depths: Blocks per stage.
        hidden_sizes: Channels after each stage.
        embedding_size: Channels of the stem.
        downsample_in_bottleneck: The first 1x1 convolution strides, as in the original paper.
        small_stem: A 3x3 stem without stride or pooling, for images of about 32 pixels.
        image_size: Height and width of the input.
        num_labels: Classes.
        dtype: Of parameters and computation; batch norms keep float32 parameters.
    """

    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    depths: tuple[int, ...] = (3, 4, 6, 3)
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    embedding_size: int = 64
    downsample_in_bottleneck: bool = False
    small_stem: bool = False
    image_size: int = 224
    num_labels: int = 1000
    dtype: vision.Dtype = "float32"

    def __post_init__(self) -> None:
        vision.check_config(self.image_size, self.num_labels, self.dtype)
        if self.layer_type not in ("basic", "bottleneck"):
            raise ModelError(f"layer_type is {self.layer_type!r}, expected 'basic' or 'bottleneck'")
        if not self.depths or len(self.depths) != len(self.hidden_sizes) or min(self.depths) < 1:
            raise ModelError(
                f"depths are {self.depths} and hidden_sizes {self.hidden_sizes}, expected as many "
                "of both, each at least 1"
            )


@dataclass(frozen=True, slots=True)
class BlockShape:
    """What a block makes of what: channels in and out, and its stride."""

    stage: int
    index: int
    inputs: int
    outputs: int
    stride: int

    @property
    def projects(self) -> bool:
        """Whether the shortcut needs a convolution."""
        return self.inputs != self.outputs or self.stride != 1


def blocks(config: ResNetConfig) -> list[BlockShape]:
    """All blocks in order; every stage but the first halves height and width."""
    found: list[BlockShape] = []
    inputs = config.embedding_size
    for stage, (depth, outputs) in enumerate(zip(config.depths, config.hidden_sizes, strict=True)):
        for index in range(depth):
            stride = 2 if stage and not index else 1
            found.append(BlockShape(stage, index, inputs, outputs, stride))
            inputs = outputs
    return found


def convolutions(config: ResNetConfig, shape: BlockShape) -> list[tuple[int, int, int, int]]:
    """The convolutions of a block: (channels in, channels out, size, stride) of each."""
    inputs, outputs, stride = shape.inputs, shape.outputs, shape.stride
    if config.layer_type == "basic":
        return [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
    middle = outputs // SQUEEZE
    first, second = (stride, 1) if config.downsample_in_bottleneck else (1, stride)
    return [(inputs, middle, 1, first), (middle, middle, 3, second), (middle, outputs, 1, 1)]


class ConvNorm(nnx.Module):
    """A convolution without bias and its batch norm."""

    def __init__(
        self, config: ResNetConfig, sizes: tuple[int, int, int, int], rngs: nnx.Rngs
    ) -> None:
        inputs, outputs, size, stride = sizes
        self.conv = vision.conv(inputs, outputs, size, rngs, config.dtype, stride=stride)
        self.norm = vision.batch_norm(outputs, rngs, config.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transform f[batch, height, width, channels]."""
        normalised: jax.Array = self.norm(self.conv(x))
        return normalised


class Block(nnx.Module):
    """Convolutions and a shortcut around them."""

    def __init__(self, config: ResNetConfig, shape: BlockShape, rngs: nnx.Rngs) -> None:
        layers = [ConvNorm(config, sizes, rngs) for sizes in convolutions(config, shape)]
        self.layers = nnx.List(layers)
        self.shortcut = nnx.data(None)
        if shape.projects:
            sizes = (shape.inputs, shape.outputs, 1, shape.stride)
            self.shortcut = ConvNorm(config, sizes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transform f[batch, height, width, channels]."""
        y = x
        for layer in list(self.layers)[:-1]:
            y = jax.nn.relu(layer(y))
        y = self.layers[-1](y)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """ResNet: ``image f[batch, height, width, 3] -> logits f[batch, classes]``."""

    def __init__(self, config: ResNetConfig, rngs: nnx.Rngs) -> None:
        self.dtype = config.dtype
        self.pool_stem = not config.small_stem
        size, stride = (3, 1) if config.small_stem else (7, 2)
        self.stem = ConvNorm(config, (3, config.embedding_size, size, stride), rngs)
        self.shapes = tuple(blocks(config))
        self.blocks = nnx.List([Block(config, shape, rngs) for shape in self.shapes])
        self.classifier = vision.linear(
            config.hidden_sizes[-1], config.num_labels, rngs, config.dtype
        )

    def __call__(self, image: jax.Array) -> jax.Array:
        """Classify f[batch, height, width, 3]; returns logits f[batch, classes]."""
        with jax.named_scope("stem"):
            x = jax.nn.relu(self.stem(vision.compute_in(image, self.dtype)))
            if self.pool_stem:
                x = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for shape, block in zip(self.shapes, self.blocks, strict=True):
            with jax.named_scope(f"stage_{shape.stage}/block_{shape.index}"):
                x = block(x)
        with jax.named_scope("pool"):
            pooled = vision.space_mean(x)
        with jax.named_scope("classifier"):
            return self.classifier(pooled)


def build(config: ResNetConfig, seed: int | None) -> Model:
    """A ResNet; see :attr:`apparate_jax.models.family.Family.build`."""
    return vision.build(
        lambda rngs: ResNet(config, rngs), seed, "resnet", vision.imagenet(config.image_size)
    )


def tensors(config: ResNetConfig) -> dict[str, Tensor]:
    """Where the parameters stand in a state dict of torchvision."""
    names = _conv_norm("stem", "conv1", "bn1")
    for position, shape in enumerate(blocks(config)):
        ours, theirs = f"blocks/{position}", f"layer{shape.stage + 1}.{shape.index}"
        for i in range(len(convolutions(config, shape))):
            names |= _conv_norm(
                f"{ours}/layers/{i}", f"{theirs}.conv{i + 1}", f"{theirs}.bn{i + 1}"
            )
        if shape.projects:
            names |= _conv_norm(
                f"{ours}/shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1"
            )
    return names | dense("classifier", "fc")


def _conv_norm(ours: str, conv_name: str, norm_name: str) -> dict[str, Tensor]:
    return conv(f"{ours}/conv", conv_name, bias=False) | batch_norm(f"{ours}/norm", norm_name)


def canonical(found: Tensors) -> dict[str, Any]:
    """Tensors under torchvision's names, whether they came with those or Hugging Face's."""
    return {_name(name): value for name, value in found.items()}


_ENDS = {"convolution": "conv", "normalization": "bn"}
_SHORTCUT = {"convolution": "0", "normalization": "1"}


def _name(name: str) -> str:
    match name.removeprefix("resnet.").split("."):
        case ["embedder", "embedder", part, kind] if part in _ENDS:
            return f"{_ENDS[part]}1.{kind}"
        case ["encoder", "stages", stage, "layers", block, "shortcut", part, kind] if (
            part in _SHORTCUT
        ):
            return f"layer{int(stage) + 1}.{block}.downsample.{_SHORTCUT[part]}.{kind}"
        case ["encoder", "stages", stage, "layers", block, "layer", i, part, kind] if part in _ENDS:
            return f"layer{int(stage) + 1}.{block}.{_ENDS[part]}{int(i) + 1}.{kind}"
        case ["classifier", "1", kind]:
            return f"fc.{kind}"
    return name


def read_config(raw: Settings) -> dict[str, Any]:
    """Settings from ``config.json``.

    Raises:
        ModelError: An activation or a first stage that this ResNet does not have.
    """
    if raw.get("hidden_act", "relu") != "relu":
        raise ModelError(f"hidden_act is {raw['hidden_act']!r}, supported: 'relu'")
    if raw.get("downsample_in_first_stage", False):
        raise ModelError("downsample_in_first_stage is true, supported: false")
    known = ("layer_type", "depths", "hidden_sizes", "embedding_size", "downsample_in_bottleneck")
    return {name: raw[name] for name in known if name in raw}


_BASIC = {"layer_type": "basic", "hidden_sizes": (64, 128, 256, 512)}
_SMALL = {"small_stem": True, "image_size": 32, "num_labels": 10}
_ZOO: dict[str, dict[str, Any]] = {
    "resnet-18": {**_BASIC, "depths": (2, 2, 2, 2)},
    "resnet-34": {**_BASIC, "depths": (3, 4, 6, 3)},
    "resnet-50": {"depths": (3, 4, 6, 3)},
    "resnet-101": {"depths": (3, 4, 23, 3)},
}

RESNET = Family(
    kind="resnet",
    config=ResNetConfig,
    build=build,
    tensors=tensors,
    head="fc.weight",
    canonical=canonical,
    read_config=read_config,
    model_types=("resnet",),
    ignored=("num_batches_tracked",),
    zoo={**_ZOO, **{f"{name}-cifar": {**sizes, **_SMALL} for name, sizes in _ZOO.items()}},
)
