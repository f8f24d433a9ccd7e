"""EfficientNet-Lite0 as an image classifier, in Flax NNX.

Inverted residual blocks (Tan and Le, 2019, arXiv 1905.11946) in the variant for mobile devices:
ReLU6 instead of swish, no squeeze-and-excitation. Padding is TensorFlow's ("SAME": the odd pixel
goes to the end). Sites read ``block_3``, and ``block_3/expand`` where no shortcut jumps over it.

Sharp edges: XLA's depthwise convolutions are slow on a CPU.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
from flax import nnx

from apparate_jax.core import ImagePreprocess, Model
from apparate_jax.errors import ModelError
from apparate_jax.models import vision
from apparate_jax.models.family import Family, Tensor, batch_norm, conv, dense

EPSILON = 1e-3
"""Added to a batch norm's variance."""

MARGIN = 32
"""Pixels that are cut off the shorter edge of a picture."""


class BlockShape(NamedTuple):
    """What a block makes of what; ``wide`` are the channels of its depthwise convolution."""

    inputs: int
    wide: int
    outputs: int
    size: int
    stride: int


@dataclass(frozen=True, slots=True)
class EfficientNetConfig:
    """Sizes of an EfficientNet-Lite.

    Attributes:
        depths: Blocks per stage.
        widths: Channels after each stage.
        kernels: Size of the depthwise convolutions per stage.
        strides: Of each stage's first block.
        expansion: How many times wider a block is inside; the first stage's blocks are not.
        stem_width: Channels of the stem.
        head_width: Channels of the last convolution.
        image_size: Height and width of the input.
        num_labels: Classes.
        dtype: Of parameters and computation; batch norms keep float32 parameters.
    """

    depths: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    widths: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    kernels: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expansion: int = 6
    stem_width: int = 32
    head_width: int = 1280
    image_size: int = 224
    num_labels: int = 1000
    dtype: vision.Dtype = "float32"

    def __post_init__(self) -> None:
        vision.check_config(self.image_size, self.num_labels, self.dtype)
        stages = (self.depths, self.widths, self.kernels, self.strides)
        if not self.depths or len({len(values) for values in stages}) > 1:
            raise ModelError(
                f"depths, widths, kernels and strides are {stages}, expected as many of each"
            )


def blocks(config: EfficientNetConfig) -> list[BlockShape]:
    """All blocks in order."""
    found: list[BlockShape] = []
    inputs = config.stem_width
    stages = zip(config.depths, config.widths, config.kernels, config.strides, strict=True)
    for stage, (depth, outputs, size, stride) in enumerate(stages):
        for index in range(depth):
            wide = inputs * (config.expansion if stage else 1)
            found.append(BlockShape(inputs, wide, outputs, size, 1 if index else stride))
            inputs = outputs
    return found


class ConvNorm(nnx.Module):
    """A convolution without bias, its batch norm, and ReLU6 unless it is linear."""

    def __init__(
        self,
        config: EfficientNetConfig,
        inputs: int,
        outputs: int,
        rngs: nnx.Rngs,
        *,
        size: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        linear: bool = False,
    ) -> None:
        self.linear = linear
        self.conv = vision.conv(
            inputs,
            outputs,
            size,
            rngs,
            config.dtype,
            stride=stride,
            groups=inputs if depthwise else 1,
            padding="SAME",
        )
        self.norm = vision.batch_norm(outputs, rngs, config.dtype, epsilon=EPSILON)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transform f[batch, height, width, channels]."""
        normalised: jax.Array = self.norm(self.conv(x))
        return normalised if self.linear else jax.nn.relu6(normalised)


class Block(nnx.Module):
    """Widen, convolve each channel alone, narrow; a shortcut around it where shapes agree."""

    def __init__(self, config: EfficientNetConfig, shape: BlockShape, rngs: nnx.Rngs) -> None:
        inputs, wide, outputs, size, stride = shape
        self.has_shortcut = inputs == outputs and stride == 1
        self.expand = nnx.data(None)
        if wide != inputs:
            self.expand = ConvNorm(config, inputs, wide, rngs)
        self.depthwise = ConvNorm(
            config, wide, wide, rngs, size=size, stride=stride, depthwise=True
        )
        self.project = ConvNorm(config, wide, outputs, rngs, linear=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transform f[batch, height, width, channels]."""
        y = x
        if self.expand is not None:
            with jax.named_scope("expand"):
                y = self.expand(y)
        with jax.named_scope("depthwise"):
            y = self.depthwise(y)
        y = self.project(y)
        return x + y if self.has_shortcut else y


class EfficientNet(nnx.Module):
    """EfficientNet-Lite: ``image f[batch, height, width, 3] -> logits f[batch, classes]``."""

    def __init__(self, config: EfficientNetConfig, rngs: nnx.Rngs) -> None:
        self.dtype = config.dtype
        self.stem = ConvNorm(config, 3, config.stem_width, rngs, size=3, stride=2)
        self.blocks = nnx.List([Block(config, shape, rngs) for shape in blocks(config)])
        self.head = ConvNorm(config, config.widths[-1], config.head_width, rngs)
        self.classifier = vision.linear(config.head_width, config.num_labels, rngs, config.dtype)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Classify f[batch, height, width, 3]; returns logits f[batch, classes]."""
        with jax.named_scope("stem"):
            x = self.stem(vision.compute_in(image, self.dtype))
        for i, block in enumerate(self.blocks):
            with jax.named_scope(f"block_{i}"):
                x = block(x)
        with jax.named_scope("head"):
            x = vision.space_mean(self.head(x))
        with jax.named_scope("classifier"):
            return self.classifier(x)


def build(config: EfficientNetConfig, seed: int | None) -> Model:
    """An EfficientNet-Lite; see :attr:`apparate_jax.models.family.Family.build`."""
    size = config.image_size
    whole = size < vision.WHOLE_BELOW
    image = ImagePreprocess(
        size,
        size,
        None if whole else size + MARGIN,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        interpolation="bicubic",
    )
    return vision.build(lambda rngs: EfficientNet(config, rngs), seed, "efficientnet", image)


def tensors(config: EfficientNetConfig) -> dict[str, Tensor]:
    """Where the parameters stand in the published PyTorch file."""
    names = _conv_norm("stem", "_conv_stem", "_bn0")
    for i, shape in enumerate(blocks(config)):
        ours, theirs = f"blocks/{i}", f"_blocks.{i}"
        if shape.wide != shape.inputs:
            names |= _conv_norm(f"{ours}/expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        names |= _conv_norm(f"{ours}/depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        names |= _conv_norm(f"{ours}/project", f"{theirs}._project_conv", f"{theirs}._bn2")
    return names | _conv_norm("head", "_conv_head", "_bn1") | dense("classifier", "_fc")


def _conv_norm(ours: str, conv_name: str, norm_name: str) -> dict[str, Tensor]:
    return conv(f"{ours}/conv", conv_name, bias=False) | batch_norm(f"{ours}/norm", norm_name)


EFFICIENTNET = Family(
    kind="efficientnet",
    config=EfficientNetConfig,
    build=build,
    tensors=tensors,
    head="_fc.weight",
    ignored=("num_batches_tracked",),
    zoo={"efficientnet-lite0": {}},
)
