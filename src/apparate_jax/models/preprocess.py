"""``preprocessor_config.json`` of a Hugging Face directory: how pictures become inputs.

The file does not say what its fields mean, the class that it names does. Those of image classifiers
are of three kinds: resize to a square (ViT), resize the shorter edge and cut out the middle, and
ConvNeXT's (ResNet's too), which gives the cut as a share.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from apparate_jax.core import ImagePreprocess
from apparate_jax.errors import ModelError

CONFIG = "preprocessor_config.json"

CROP_PCT = 224 / 256
"""ConvNeXT's share of the shorter edge, unless the file says another."""

NO_CROP_FROM = 384
"""From this size on ConvNeXT's pictures are not cut."""

_INTERPOLATIONS: Mapping[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""By their numbers in Pillow."""


def from_config(raw: Mapping[str, Any]) -> ImagePreprocess:
    """How pictures become inputs.

    Args:
        raw: Contents of ``preprocessor_config.json``.

    Raises:
        ModelError: A size or an interpolation that this package does not know.
    """
    height, width, resize = _sizes(raw)
    resample = raw.get("resample", 2)
    if resample not in _INTERPOLATIONS:
        raise ModelError(
            f"resample is {resample!r} in {CONFIG}, supported: 2 (bilinear) and 3 (bicubic)"
        )
    scale = float(raw.get("rescale_factor", 1 / 255)) if raw.get("do_rescale", True) else 1.0
    normalizes = raw.get("do_normalize", True)
    mean = raw.get("image_mean", (0.5,) * 3) if normalizes else (0.0,) * 3
    std = raw.get("image_std", (0.5,) * 3) if normalizes else (1.0,) * 3
    return ImagePreprocess(
        height,
        width,
        resize,
        mean=_channels(mean, scale),
        std=_channels(std, scale),
        interpolation=_INTERPOLATIONS[resample],
    )


def resized(image: ImagePreprocess, size: int) -> ImagePreprocess:
    """The same for square inputs of another size, in the same proportions."""
    if (image.height, image.width) == (size, size):
        return image
    shorter = min(image.height, image.width)
    resize = None if image.resize is None else max(size, round(image.resize * size / shorter))
    return replace(image, height=size, width=size, resize=resize)


def read(root: Path, read_json: Any) -> ImagePreprocess | None:
    """From a directory; None if it does not say.

    Args:
        root: The directory.
        read_json: Reads a JSON object from a path.

    Raises:
        ModelError: The file is damaged, or asks for what this package does not know.
    """
    path = root / CONFIG
    return from_config(read_json(path)) if path.is_file() else None


def _channels(values: Any, scale: float) -> tuple[float, float, float]:
    """Three values for pixels in 0..255, from those for pixels times ``scale``."""
    each = [values] * 3 if isinstance(values, int | float) else list(values)
    if len(each) != 3:
        raise ModelError(f"{len(each)} values for image_mean or image_std, expected 3")
    red, green, blue = (float(value) / scale for value in each)
    return red, green, blue


def _sizes(raw: Mapping[str, Any]) -> tuple[int, int, int | None]:
    """Height, width, and what the shorter edge is resized to before a cut."""
    size = raw.get("size", 224)
    names = f"{raw.get('image_processor_type')} {raw.get('feature_extractor_type')}"
    if raw.get("do_center_crop"):
        height, width = _pair(raw.get("crop_size", size))
        edge = _edge(size)
        return height, width, None if edge is None else max(edge, min(height, width))
    if raw.get("crop_pct") or "ConvNext" in names:
        edge = _edge(size) or min(_pair(size))
        share = float(raw.get("crop_pct") or CROP_PCT)
        return edge, edge, int(edge / share) if edge < NO_CROP_FROM else None
    height, width = _pair(size)
    return height, width, _edge(size) if isinstance(size, dict) else None


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, dict) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    if isinstance(size, dict) and "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise ModelError(
        f"an image size of {size!r} in {CONFIG}, expected a number, height and width, or "
        "shortest_edge"
    )


def _edge(size: Any) -> int | None:
    """What the shorter edge is resized to, None where height and width are given."""
    if isinstance(size, dict):
        return int(size["shortest_edge"]) if "shortest_edge" in size else None
    return int(size)
