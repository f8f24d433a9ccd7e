"""The arithmetic of sliding windows that convolutions and pools share: padding and output sizes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.models.onnx.graph import Node


class Windows(NamedTuple):
    """Windows over the spatial axes.

    Attributes:
        kernel: Taps per axis.
        strides: Steps per axis.
        dilations: Distances between taps per axis.
        pads: What is added before and after each axis.
        out: Windows per axis.
        padded_end: End of the padding that the model asked for; ``pads`` may reach further when
            the number of windows is rounded up.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    out: tuple[int, ...]
    padded_end: tuple[int, ...]


def windows(node: Node, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> Windows:
    """Windows of a convolution or pool from its attributes.

    Args:
        node: With ``strides``, ``dilations``, ``pads``, ``auto_pad`` and ``ceil_mode``.
        spatial: Sizes of the input's spatial axes.
        kernel: Taps per axis.
    """
    rank = len(spatial)
    strides = node.attributes.get("strides", (1,) * rank)
    dilations = node.attributes.get("dilations", (1,) * rank)
    pads = node.attributes.get("pads", (0,) * 2 * rank)
    auto = node.attributes.get("auto_pad", "NOTSET")
    up = bool(node.attributes.get("ceil_mode", 0))
    axes = [
        _axis(n, (k - 1) * d + 1, s, (pads[i], pads[i + rank]), auto, up)
        for i, (n, k, s, d) in enumerate(zip(spatial, kernel, strides, dilations, strict=True))
    ]
    return Windows(
        kernel=kernel,
        strides=tuple(strides),
        dilations=tuple(dilations),
        pads=tuple((before, after) for before, after, _, _ in axes),
        out=tuple(out for _, _, out, _ in axes),
        padded_end=tuple(end for _, _, _, end in axes),
    )


def _axis(
    size: int, span: int, stride: int, pads: tuple[int, int], auto: str, up: bool
) -> tuple[int, int, int, int]:
    """Padding before, padding after, number of windows, end of the asked padding."""
    before, after = (0, 0) if auto == "VALID" else pads
    if auto.startswith("SAME"):
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        before = total // 2 if auto == "SAME_UPPER" else total - total // 2
        after = total - before
    room = size + before + after - span
    out = (-(-room // stride) if up else room // stride) + 1
    if up and (out - 1) * stride >= size + before:
        out -= 1  # a window that would start in the padding at the end
    needed = (out - 1) * stride + span - size - before
    return before, max(after, needed), out, size + after


def taps(window: Windows, size: int, axis: int, count_padding: bool) -> NDArray[np.int64]:
    """How many taps of each window along an axis count in an average.

    Args:
        window: All of them.
        size: Of the input's axis.
        axis: Spatial axis.
        count_padding: Whether taps in the asked padding count too.

    Returns:
        i64[out].
    """
    before = window.pads[axis][0]
    starts = np.arange(window.out[axis]) * window.strides[axis] - before
    places = starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
    low, high = (-before, window.padded_end[axis]) if count_padding else (0, size)
    return np.asarray(((places >= low) & (places < high)).sum(axis=1), np.int64)
