"""Make a :class:`~apparate_jax.core.Model` of a module or function that somebody else wrote.

Nothing of theirs is changed. Parameters become a plain pytree of arrays: as they are for Linen and
functions, one flat dictionary ``"path/to/kernel" -> array`` for NNX modules.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import linen, nnx

from apparate_jax.core import InputSpec, Model
from apparate_jax.errors import ModelError

Inputs = Sequence[Any] | None
Pooling = Literal["mean", "first"]


def input_specs(inputs: Inputs) -> tuple[InputSpec, ...]:
    """Descriptions of inputs that were given as specs or as example arrays with a batch axis.

    Raises:
        ModelError: If an entry is neither, or an array has no batch axis.
    """
    return tuple(_spec(value, i) for i, value in enumerate(inputs or ()))


def _spec(value: Any, index: int) -> InputSpec:
    if isinstance(value, InputSpec):
        return value
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if shape is None or dtype is None or len(shape) < 1:
        raise ModelError(
            f"input {index} is described by a {type(value).__name__}, expected an InputSpec or an "
            "example array with the batch as leading axis"
        )
    return InputSpec(f"input_{index}", tuple(shape[1:]), np.dtype(dtype).name)


def from_function(
    fn: Callable[..., Any],
    params: Any,
    *,
    inputs: Inputs = None,
    name: str | None = None,
    mask: str | None = None,
    pooling: Pooling = "mean",
    labels: Sequence[str] = (),
    source: Mapping[str, Any] | None = None,
) -> Model:
    """A model of a plain function.

    Args:
        fn: ``fn(params, *inputs) -> logits f[batch, classes]``.
        params: Pytree of arrays.
        inputs: Specs or example arrays (with the batch axis), in call order.
        name: Name for people.
        mask: Name of the input that marks valid positions.
        pooling: How the model pools a sequence.
        labels: Class names.
        source: How to make it again; see :attr:`apparate_jax.core.Model.source`.
    """
    return Model(
        name=name or str(getattr(fn, "__name__", type(fn).__name__)),
        apply=fn,
        params=params,
        inputs=input_specs(inputs),
        labels=tuple(labels),
        mask=mask,
        pooling=pooling,
        source=dict(source or {}),
    )


def from_linen(
    module: linen.Module,
    variables: Mapping[str, Any],
    *,
    apply_kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
    **options: Any,
) -> Model:
    """A model of a Flax Linen module with its variables (``params``, ``batch_stats``, ...).

    Args:
        module: The module.
        variables: Everything that ``module.apply`` reads.
        apply_kwargs: Further keyword arguments of ``module.apply``, e.g. ``{"train": False}``.
        name: Name for people, the module's class unless given.
        **options: As for :func:`from_function`.

    Raises:
        ModelError: If the variables have no ``params`` collection.
    """
    if "params" not in variables:
        raise ModelError(
            f"the variables have collections {sorted(variables)}, expected 'params' among them: "
            "give what module.init returned"
        )
    fixed = dict(apply_kwargs or {})

    def apply(params: Any, *inputs: jax.Array) -> Any:
        return module.apply(params, *inputs, **fixed)

    return from_function(apply, dict(variables), name=name or type(module).__name__, **options)


def from_nnx(module: nnx.Module, *, name: str | None = None, **options: Any) -> Model:
    """A model of a Flax NNX module, as it answers in evaluation mode.

    The module itself is not touched: a copy is put in evaluation mode. State of random number
    generators is kept out of the parameters.

    Args:
        module: The module.
        name: Name for people, the module's class unless given.
        **options: As for :func:`from_function`.
    """
    copy = nnx.clone(module)
    copy.eval()
    graphdef, *states = nnx.split(copy, nnx.RngState, ...)
    rngs, state = states
    flat = nnx.to_flat_state(state)
    paths = ["/".join(map(str, path)) for path, _ in flat]
    variables = [variable for _, variable in flat]

    def apply(params: Mapping[str, jax.Array], *inputs: jax.Array) -> Any:
        filled = [v.replace(params[path]) for path, v in zip(paths, variables, strict=True)]
        keys = [path for path, _ in flat]
        restored = nnx.from_flat_state(list(zip(keys, filled, strict=True)))
        return nnx.merge(graphdef, rngs, restored)(*inputs)

    params = {path: v.get_value() for path, v in zip(paths, variables, strict=True)}
    return from_function(apply, params, name=name or type(module).__name__, **options)
