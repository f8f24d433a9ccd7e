"""Pictures, and models that take them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from apparate_jax.core import ImagePreprocess, InputSpec
from apparate_jax.models import from_function

SHARED = Path(__file__).parents[3] / "shared" / "data"
"""Real data, where a checkout has it."""

HALF = (127.5, 127.5, 127.5)


def image_model(size=8, *, shape=None, dtype="float32", labels=(), **how):
    """A model of one picture; nothing of it but its description is used."""
    settings = {"mean": HALF, "std": HALF, **how}
    return from_function(
        lambda params, x: x,
        {},
        inputs=[InputSpec("image", shape or (size, size, 3), dtype)],
        labels=labels,
        image=ImagePreprocess(size, size, **settings),
    )


def raw_model(size=8, **options):
    """The same with the pixels as they are."""
    return image_model(size, mean=(0.0,) * 3, std=(1.0,) * 3, **options)


def flat(value, size=8):
    """A picture of one colour: u8[size, size, 3]."""
    return np.full((size, size, 3), value, np.uint8)


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_pictures(folder, values, size=8):
    """``0.png``, ``1.png`` ... of one shade each."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, value in enumerate(values):
        (folder / f"{row}.png").write_bytes(encoded(flat(value, size)))
    return folder


def shades(data, start=0, stop=None):
    """The shade of each picture of a data set whose model takes raw pixels."""
    (values,) = data.rows(start, len(data) if stop is None else stop)
    return values[:, 0, 0, 0].round().astype(int).tolist()
