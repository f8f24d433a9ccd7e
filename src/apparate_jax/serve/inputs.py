"""Whether an example is one that the model takes, and its arrays in the model's order."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.errors import ConfigError, RequestError


class Inputs:
    """The inputs of a model, for single examples."""

    def __init__(self, model: Model) -> None:
        """Take note of names, shapes and dtypes.

        Raises:
            ConfigError: The model's inputs are not described.
        """
        self._specs = tuple(
            (spec.name, spec.shape, np.dtype(jax.numpy.dtype(spec.dtype))) for spec in model.inputs
        )
        if not self._specs:
            raise ConfigError(
                f"the inputs of {model.name!r} are not described: give inputs= where the model is "
                "made"
            )

    def ordered(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """The arrays of one example, in the model's order.

        Args:
            inputs: By name, of the model's shapes **without** the batch axis.

        Raises:
            RequestError: Missing or unknown inputs, another shape or dtype.
        """
        if len(inputs) != len(self._specs):
            expected = [name for name, _, _ in self._specs]
            raise RequestError(f"inputs are {sorted(inputs)}, expected {expected}")
        arrays = []
        for name, shape, dtype in self._specs:
            array = inputs.get(name)
            if array is None:
                raise RequestError(f"input {name!r} is missing, got {sorted(inputs)}")
            if array.shape != shape or array.dtype != dtype:
                raise RequestError(
                    f"input {name!r} is {array.dtype}{list(array.shape)}, "
                    f"expected {dtype}{list(shape)}"
                )
            arrays.append(array)
        return tuple(arrays)
