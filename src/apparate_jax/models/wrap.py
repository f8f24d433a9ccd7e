"""Make a :class:`~apparate_jax.core.Model` of a module or function that somebody else wrote.

Nothing of theirs is changed. Parameters become a plain pytree of arrays: as they are for Linen and
functions, one flat dictionary ``"path/to/kernel" -> array`` for NNX and Equinox modules.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import linen, nnx

from apparate_jax.core import ImagePreprocess, InputSpec, Model
from apparate_jax.errors import ModelError

Inputs = Sequence[Any] | None
Pooling = Literal["mean", "first", "last"]


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
    image: ImagePreprocess | None = None,
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
        image: How pictures become its input ``f[batch, height, width, 3]`` (or channels first).
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
        image=image,
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
    keys = [path for path, _ in flat]
    paths = ["/".join(map(str, path)) for path in keys]
    # Without their values, which would stay in memory when others take their place.
    variables = [variable.replace(None) for _, variable in flat]

    def apply(params: Mapping[str, jax.Array], *inputs: jax.Array) -> Any:
        filled = [v.replace(params[path]) for path, v in zip(paths, variables, strict=True)]
        restored = nnx.from_flat_state(list(zip(keys, filled, strict=True)))
        # New variables of the generators too: NNX transforms refuse those of an outer trace.
        own_rngs = jax.tree.map(lambda leaf: leaf, rngs)
        return nnx.merge(graphdef, own_rngs, restored)(*inputs)

    params = {path: v.get_value() for path, (_, v) in zip(paths, flat, strict=True)}
    return from_function(apply, params, name=name or type(module).__name__, **options)


def is_equinox(value: Any) -> bool:
    """Whether ``value`` is an Equinox module; Equinox need not be installed to ask."""
    return any(cls.__module__.split(".")[0] == "equinox" for cls in type(value).__mro__)


def from_equinox(
    module: Any,
    *,
    state: Any = None,
    call_kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
    **options: Any,
) -> Model:
    """A model of an Equinox module, as it answers in inference mode.

    Equinox modules take one example: the module is mapped over the batch with ``jax.vmap``. The
    module itself is not touched.

    Args:
        module: The module, ``module(*example) -> logits f[classes]``, with ``state`` (and then the
            new state in its result) if it has one.
        state: What ``equinox.nn.make_with_state`` returned beside the module, if it has state.
        call_kwargs: Further keyword arguments of each call, the same for every example, e.g.
            ``{"key": jax.random.key(0)}`` for modules that want a key in inference mode too.
        name: Name for people, the module's class unless given.
        **options: As for :func:`from_function`.

    Raises:
        ModelError: If it is no Equinox module.
    """
    if not is_equinox(module):
        raise ModelError(f"got a {type(module).__name__}, expected an Equinox module")
    import equinox as eqx  # optional: whoever has an Equinox module has it

    held, rest = eqx.partition((eqx.nn.inference_mode(module), state), eqx.is_array)
    leaves, structure = jax.tree.flatten_with_path(held)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    fixed = dict(call_kwargs or {})

    def apply(params: Mapping[str, jax.Array], *inputs: jax.Array) -> Any:
        filled = jax.tree.unflatten(structure, [params[path] for path in paths])

        def one(*example: jax.Array) -> Any:
            # Combined in here: state may be read only once where it was made.
            own, own_state = eqx.combine(filled, rest)
            if state is None:
                return own(*example, **fixed)
            return own(*example, own_state, **fixed)[0]

        return jax.vmap(one)(*inputs)

    params = dict(zip(paths, (leaf for _, leaf in leaves), strict=True))
    return from_function(apply, params, name=name or type(module).__name__, **options)
