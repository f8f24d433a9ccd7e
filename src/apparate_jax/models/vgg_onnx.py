"""The convolutions of a VGG in an ``.onnx`` file, as a backbone with a new random head.

For transfer: what the file's own classifier answers is dropped, what its convolutions see is kept.
Whoever wants the whole graph as it is gives the file itself as the model.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from apparate_jax.core import Model
from apparate_jax.errors import WeightsError
from apparate_jax.models.onnx.reader import read_model
from apparate_jax.models.vgg import VGG, VGGConfig

_BETWEEN = ("Relu", "Transpose", "Identity", "Cast")
"""Operators that may stand between a VGG's convolutions and poolings."""


class Stacks(NamedTuple):
    """The convolutions of a graph up to its last pooling.

    Attributes:
        depths: Convolutions before each pooling.
        nodes: The convolutions.
    """

    depths: tuple[int, ...]
    nodes: tuple[Any, ...]


def vgg_from_onnx(
    path: str | Path,
    *,
    classes: int = 1000,
    caffe_colors: bool = True,
    seed: int = 0,
    **changes: Any,
) -> Model:
    """A VGG with the convolutions of a file and a random classifier.

    Args:
        path: ``.onnx`` file whose first layers are a VGG's, without batch norms.
        classes: Of the new classifier.
        caffe_colors: The inputs are BGR with the mean subtracted, as Keras has them; else
            torchvision's normalised RGB.
        seed: Of the classifier's weights.
        **changes: Fields of :class:`~apparate_jax.models.vgg.VGGConfig`, e.g. ``image_size=32`` or
            ``classifier_width=512``.

    Raises:
        WeightsError: A damaged file, or one whose convolutions are no VGG's.
        ModelError: Unknown settings, or the ``onnx`` package is not installed.
    """
    where = Path(path)
    graph = read_model(where).graph
    stacks = _stacks(graph.node, where)
    weights = _weights(graph, stacks, where)
    ends = itertools.accumulate(stacks.depths)
    widths = tuple(weights[end - 1][0].shape[0] for end in ends)
    settings = {"depths": stacks.depths, "widths": widths, "caffe_colors": caffe_colors}
    config = VGG.configure({**settings, "num_labels": classes, **changes})
    model = VGG.make(config, seed, random_weights=True)
    params = {**model.params, **_layers(config, model, weights, where)}
    return replace(model, name=where.stem, params=params)


def _stacks(nodes: Sequence[Any], where: Path) -> Stacks:
    depths: list[int] = []
    found: list[Any] = []
    last = max((i for i, node in enumerate(nodes) if node.op_type == "Conv"), default=-1)
    for node in nodes[: last + 1]:
        if node.op_type == "Conv":
            found.append(node)
        elif node.op_type == "MaxPool":
            depths.append(len(found) - sum(depths))
        elif node.op_type not in _BETWEEN:
            raise WeightsError(
                f"{where} is no VGG: a {node.op_type} before its last convolution, expected "
                f"Conv, MaxPool, {', '.join(_BETWEEN)}"
            )
    depths.append(len(found) - sum(depths))
    if not found or 0 in depths:
        raise WeightsError(f"{where} is no VGG: {depths} convolutions between its poolings")
    return Stacks(tuple(depths), tuple(found))


def _weights(graph: Any, stacks: Stacks, where: Path) -> list[tuple[Any, Any]]:
    """Kernel f32[out, in, 3, 3] and bias f32[out] of each convolution."""
    from onnx import numpy_helper

    initializers = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in stacks.nodes:
        names = list(node.input)[1:]
        if len(names) != 2 or not set(names) <= set(initializers):
            raise WeightsError(
                f"{where}: the convolution {node.name or node.output[0]!r} has weights {names}, "
                "expected a kernel and a bias among the graph's initializers"
            )
        kernel, bias = (numpy_helper.to_array(initializers[name]) for name in names)
        found.append((kernel, bias))
    return found


def _layers(
    config: VGGConfig, model: Model, weights: list[tuple[Any, Any]], where: Path
) -> dict[str, jax.Array]:
    """Our parameters for these weights."""
    names = VGG.tensors(config)
    params: dict[str, jax.Array] = {}
    for i, stored in enumerate(weights):
        for part, value in zip(("kernel", "bias"), stored, strict=True):
            path = f"layers/{i}/conv/{part}"
            like = model.params[path]
            expected = names[path].stored_shape(like.shape)
            if value.shape != expected:
                raise WeightsError(
                    f"{where}: {part} of convolution {i} is {list(value.shape)}, expected "
                    f"{list(expected)}. Nothing loaded"
                )
            params[path] = jnp.asarray(names[path].ours(value), like.dtype)
    return params
