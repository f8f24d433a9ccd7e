"""Pictures: from encoded bytes or arrays to the array that a model takes.

What a model wants is kept with it (:attr:`apparate_jax.core.Model.image`). Every picture becomes
RGB first: its EXIF orientation is applied, greyscale is repeated, alpha is dropped, CMYK and
palettes are converted, 16-bit greyscale is brought to 8 bits. Then it is resized so that its
shorter edge has the asked length (Pillow's filters, which average over all pixels when they
shrink), the middle is cut out, and each channel is normalised.
"""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import ImagePreprocess, InputSpec, Model
from apparate_jax.data.dataset import Rows, named
from apparate_jax.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

Pixels = NDArray[np.uint8]
"""u8[height, width, 3], RGB."""

_CHANNELS = 3
# Decoding releases the interpreter's lock; more threads than this only take cores from the model.
_WORKERS = min(4, os.cpu_count() or 1)


def takes_images(model: Model) -> bool:
    """Whether a model's only input has the shape of a picture, channels last or first."""
    return len(model.inputs) == 1 and _layout(model.inputs[0]) is not None


def _layout(spec: InputSpec) -> str | None:
    if len(spec.shape) != 3:
        return None
    if spec.shape[-1] == _CHANNELS:
        return "last"
    return "first" if spec.shape[0] == _CHANNELS else None


class ImageEncoder:
    """Turns pictures into a model's input ``[height, width, 3]``, or ``[3, height, width]``."""

    def __init__(self, model: Model) -> None:
        """Make the encoder of a model from the preprocessing that it carries.

        Raises:
            DataError: The model takes no pictures, does not say how they are prepared, or says it
                for another size than its input has.
        """
        how = model.image
        if how is None or not takes_images(model):
            raise DataError(_why_not(model))
        spec = model.inputs[0]
        self._first = _layout(spec) == "first"
        height, width = spec.shape[1:] if self._first else spec.shape[:2]
        if (how.height, how.width) != (height, width):
            raise DataError(
                f"the model {model.name!r} takes pictures of {height}x{width}, but its image "
                f"preprocessing gives {how.height}x{how.width}: make them equal where the model is "
                "made"
            )
        self._how = how
        self._dtype = jax.numpy.dtype(spec.dtype)
        self._mean = np.asarray(how.mean, np.float32)
        self._std = np.asarray(how.std, np.float32)
        raw = how.mean == (0.0,) * 3 and how.std == (1.0,) * 3
        if np.issubdtype(self._dtype, np.integer) and not raw:
            raise DataError(
                f"the model {model.name!r} takes {spec.dtype}, which cannot hold normalised "
                "values: use a mean of 0 and a std of 1 in its ImagePreprocess"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one encoded picture."""
        size = self._how.height, self._how.width
        return (_CHANNELS, *size) if self._first else (*size, _CHANNELS)

    def encode(self, pixels: Pixels) -> NDArray[Any]:
        """Prepare a decoded picture.

        Args:
            pixels: u8[any height, any width, 3], RGB.

        Returns:
            The model's input without its batch axis.
        """
        return self._prepared(resize_and_crop(pixels, self._how))

    def _prepared(self, pixels: Pixels) -> NDArray[Any]:
        """A picture of the model's size as the model takes it."""
        values = pixels.astype(np.float32)
        if self._how.channels == "bgr":
            values = values[..., ::-1]
        values = (values - self._mean) / self._std
        if self._first:
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, self._dtype)

    def _pixels(self, prepared: NDArray[Any]) -> Pixels:
        """The picture that was prepared."""
        values = prepared.transpose(1, 2, 0) if self._first else prepared
        levels = np.rint(values.astype(np.float32) * self._std + self._mean).clip(0, 255)
        pixels: Pixels = levels.astype(np.uint8)
        return pixels[..., ::-1] if self._how.channels == "bgr" else pixels

    def changed(
        self, prepared: NDArray[Any], gain: float, kept: float, down: float, right: float
    ) -> NDArray[Any]:
        """A prepared picture in another light and framing.

        Args:
            prepared: As :meth:`encode` returns it.
            gain: Factor of all grey levels, which end at 255.
            kept: Share of height and width that is left, and brought to the model's size again.
            down: Where that part begins, 0 at the top, 1 as low as can be.
            right: The same from the left.
        """
        from PIL import Image

        levels = np.rint(np.arange(256) * gain).clip(0, 255).astype(np.uint8)
        height, width = self._how.height, self._how.width
        left, top = right * (1 - kept) * width, down * (1 - kept) * height
        box = (left, top, left + kept * width, top + kept * height)
        lit = Image.fromarray(np.ascontiguousarray(levels[self._pixels(prepared)]))
        resized = lit.resize((width, height), _filter(self._how), box)
        return self._prepared(np.asarray(resized))

    def decode(self, content: bytes) -> NDArray[Any]:
        """Prepare an encoded picture (JPEG, PNG, ...).

        Raises:
            DataError: It cannot be decoded.
        """
        return self.encode(decode_pixels(content))

    def stack(self, images: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Prepared pictures as one array ``[count, ...]``, also when there are none."""
        return np.stack(images) if images else np.empty((0, *self.shape), self._dtype)


def _why_not(model: Model) -> str:
    shapes = [f"{spec.name}: {spec.dtype}{list(spec.shape)}" for spec in model.inputs]
    if not takes_images(model):
        return (
            f"the model {model.name!r} takes {shapes}, expected one input of shape [height, width, "
            "3] or [3, height, width] for pictures: give the data as .npz of its inputs"
        )
    return (
        f"the model {model.name!r} takes {shapes[0]} but does not say how pictures become that: "
        "give image=ImagePreprocess(height, width, resize=..., mean=..., std=...) to "
        "from_function, from_linen or from_nnx in its factory and inject it again, or give the "
        "data as .npz"
    )


def check_size(content: bytes, max_pixels: int) -> None:
    """See that an encoded picture is not too large to be decoded; only its header is read.

    Raises:
        DataError: It is larger, or no picture.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"no picture that can be decoded ({error})") from error
    if width * height > max_pixels:
        raise DataError(f"{width}x{height} pixels, expected at most {max_pixels}: make it smaller")


def decode_pixels(content: bytes) -> Pixels:
    """Decode a picture.

    Args:
        content: An encoded picture; of an animation, the first frame counts.

    Returns:
        u8[height, width, 3], RGB, upright.

    Raises:
        DataError: It is none, or is damaged.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return np.asarray(_rgb(ImageOps.exif_transpose(image)))
    # Pillow's readers raise these on damaged files, whatever the format.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"no picture that can be decoded ({error})") from error


def _rgb(image: Any) -> Any:
    if image.mode.startswith("I"):  # 16-bit greyscale; a plain conversion would clip at 255
        from PIL import Image

        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _filter(how: ImagePreprocess) -> Any:
    from PIL import Image

    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    return filters[how.interpolation]


def resize_and_crop(pixels: Pixels, how: ImagePreprocess) -> Pixels:
    """The middle of the resized picture: u8[height, width, 3]."""
    from PIL import Image

    height, width = pixels.shape[:2]
    if how.resize is None:
        target = how.width, how.height
    else:
        # Non-square inputs may need more than the shorter edge to be covered.
        scale = max(how.resize / min(height, width), how.height / height, how.width / width)
        target = max(how.width, int(width * scale)), max(how.height, int(height * scale))
    if target != (width, height):
        resized = Image.fromarray(pixels).resize(target, _filter(how))
        pixels = np.asarray(resized)
    top = round((pixels.shape[0] - how.height) / 2)
    left = round((pixels.shape[1] - how.width) / 2)
    return pixels[top : top + how.height, left : left + how.width]


class ImageSource(Protocol):
    """Encoded pictures, read when they are needed."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, start: int, stop: int) -> Sequence[bytes]:
        """The encoded pictures ``start`` to ``stop``.

        Raises:
            DataError: They cannot be read; names the file and the row.
        """

    def place(self, row: int) -> str:
        """Where a picture is, for messages."""


class ImageDataset:
    """Pictures that are decoded when they are asked for; nothing is kept."""

    def __init__(
        self,
        name: str,
        source: ImageSource,
        encoder: ImageEncoder,
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        """Make the data set; the first picture is decoded to see that it is one.

        Args:
            name: For people.
            source: Encoded pictures.
            encoder: Of the model.
            labels: i64[count], or None.

        Raises:
            DataError: The first picture cannot be decoded.
        """
        self.name = name
        self.labels = labels
        self._source = source
        self._encoder = encoder
        self.rows(0, 1)

    def __len__(self) -> int:
        return len(self._source)

    def rows(self, start: int, stop: int) -> Rows:
        """Pictures ``start`` to ``stop``, decoded by a few threads.

        Raises:
            DataError: One cannot be decoded; names the file and the row.
        """
        contents = self._source.read(start, stop)
        decode = self._decoder(start)
        if len(contents) < 2:
            return (self._encoder.stack(list(map(decode, range(len(contents)), contents))),)
        with ThreadPoolExecutor(_WORKERS) as pool:
            return (self._encoder.stack(list(pool.map(decode, range(len(contents)), contents))),)

    def _decoder(self, start: int) -> Callable[[int, bytes], NDArray[Any]]:
        def decode(position: int, content: bytes) -> NDArray[Any]:
            try:
                return self._encoder.decode(content)
            except DataError as error:
                place = self._source.place(start + position)
                raise DataError(f"{self.name}, {place}: {error}") from error

        return decode

    def example(self, row: int, model: Model) -> dict[str, NDArray[Any]]:
        """One example by input name, without the batch axis."""
        return named(model, tuple(values[0] for values in self.rows(row, row + 1)))
