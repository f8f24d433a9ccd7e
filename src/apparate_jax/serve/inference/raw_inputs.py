"""Raw inputs: texts and encoded pictures as clients have them, prepared as the model wants them.

How is part of the checkpoint: the tokenizer among its assets, or its image preprocessing. A client
then sends one BYTES tensor ``text`` or ``image`` of shape [n] (or [n, 1]) in place of the model's
own inputs. It is work for a processor, so it is done on threads of its own and not on the event
loop; what tokenises and decodes lets go of Python's lock meanwhile.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.data.image import ImageEncoder, check_size
from apparate_jax.data.text import TOKENIZER, TextEncoder
from apparate_jax.errors import DataError, RequestError

logger = logging.getLogger(__name__)

TEXT, IMAGE = "text", "image"
MAX_PIXELS = 2**26
"""Of one picture: a few kilobytes can claim to be many more, and decoding them takes the memory."""

Prepare = Callable[[list[bytes]], dict[str, NDArray[Any]]]

_pool = ThreadPoolExecutor(
    max(1, (os.cpu_count() or 2) // 2), thread_name_prefix="apparate-prepare"
)


class RawInputs:
    """The raw input that a model has besides its own ones.

    Attributes:
        name: ``"text"`` or ``"image"``.
    """

    def __init__(self, name: str, prepare: Prepare) -> None:
        """An input and what becomes of it; see :func:`raw_inputs_of`."""
        self.name = name
        self._prepare = prepare

    def is_meant(self, inputs: Mapping[str, NDArray[Any]]) -> bool:
        """Whether a request has this input, and no other."""
        return inputs.keys() == {self.name}

    async def prepare(
        self, inputs: Mapping[str, NDArray[Any]], max_rows: int
    ) -> dict[str, NDArray[Any]]:
        """The model's own inputs ``[n, ...]`` from a request's raw ones.

        Args:
            inputs: With this input: bytes objects, [n] or [n, 1].
            max_rows: Most examples that one request may hold.

        Raises:
            RequestError: Not BYTES, of another shape, too many, or not what they should be.
        """
        values = inputs[self.name]
        if values.dtype != np.object_:
            raise RequestError(f"input {self.name!r} is not of datatype BYTES")
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise RequestError(
                f"input {self.name!r} has shape {list(values.shape)}, expected [n] or [n, 1] for n "
                "examples"
            )
        if len(values) > max_rows:
            raise RequestError(
                f"the request holds {len(values)} examples, expected at most {max_rows}: "
                "split it up"
            )
        given = [one if isinstance(one, bytes) else str(one).encode() for one in values.tolist()]
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(_pool, self._prepare, given)
        except DataError as error:
            raise RequestError(f"input {self.name!r}: {error}") from None


def raw_inputs_of(model: Model) -> RawInputs | None:
    """What a model's checkpoint says of raw inputs; None if it says nothing of them.

    A checkpoint that does say something, where what prepares it is not installed, is served without
    raw inputs, and a warning says so.
    """
    own = {spec.name for spec in model.inputs}
    try:
        if TOKENIZER in model.assets and TEXT not in own:
            return RawInputs(TEXT, _texts(TextEncoder(model)))
        if model.image is not None and IMAGE not in own:
            return RawInputs(IMAGE, _pictures(model, ImageEncoder(model)))
    except (DataError, ModuleNotFoundError) as error:
        logger.warning("%r is served without raw inputs: %s", model.name, error)
    return None


def _texts(encode: TextEncoder) -> Prepare:
    def prepare(given: list[bytes]) -> dict[str, NDArray[Any]]:
        texts = []
        for row, one in enumerate(given):
            try:
                texts.append(one.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"text {row} is no UTF-8: {error}") from None
        return {**encode(texts)}

    return prepare


def _pictures(model: Model, encoder: ImageEncoder) -> Prepare:
    name = model.inputs[0].name

    def prepare(given: list[bytes]) -> dict[str, NDArray[Any]]:
        pictures = []
        for row, one in enumerate(given):
            try:
                check_size(one, MAX_PIXELS)
                pictures.append(encoder.decode(one))
            except DataError as error:
                raise DataError(f"picture {row} of {len(one)} bytes: {error}") from None
        return {name: encoder.stack(pictures)}

    return prepare
