"""A model from what the user typed: a directory, a Python reference, or a name of the zoo."""

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flax import linen, nnx

from apparate_jax.core import Model
from apparate_jax.errors import ModelError
from apparate_jax.models.families import FAMILIES
from apparate_jax.models.hf import from_hf
from apparate_jax.models.wrap import from_linen, from_nnx
from apparate_jax.models.zoo import from_zoo, unknown_model, zoo_names


def load_model(reference: str, *, base: str | None = None, **options: Any) -> Model:
    """Load a model.

    Args:
        reference: Directory with ``config.json`` and safetensors (or a LoRA adapter),
            ``package.module:factory``, or a name of the zoo.
        base: Base model of an adapter, see :func:`apparate_jax.models.hf.from_hf`.
        **options: Settings of the model, e.g. ``classes`` for the zoo or ``seq_len``.

    Raises:
        ModelError: Nothing of that name, or a factory that fails or returns something else.
        WeightsError: Weights that do not fit.
    """
    if Path(reference).is_dir():
        return from_hf(reference, base=base, **options)
    if ":" in reference:
        return from_factory(reference)
    if reference in zoo_names():
        return from_zoo(reference, **options)
    if os.sep in reference:
        raise ModelError(f"no model directory at {reference}")
    raise unknown_model(reference)


def from_factory(reference: str) -> Model:
    """The model that the user's own factory makes.

    The factory takes no arguments. It returns a :class:`~apparate_jax.core.Model`, an NNX module
    and its inputs, or a Linen module, its variables and its inputs; inputs are example arrays with
    the batch axis, or ``InputSpec``.

    Args:
        reference: ``package.module:factory``; the working directory is searched too.

    Raises:
        ModelError: No such module or factory, or another result.
    """
    module_name, _, attribute = reference.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            f"cannot import {reference!r} ({error}): expected package.module:factory, importable "
            "from here"
        ) from error
    if not callable(factory):
        raise ModelError(f"{reference!r} is a {type(factory).__name__}, expected a function")
    model = _as_model(factory(), reference)
    return replace(model, source={"kind": "python", "reference": reference})


def _as_model(made: Any, reference: str) -> Model:
    if isinstance(made, Model):
        return made
    parts = made if isinstance(made, tuple) else (made,)
    if isinstance(parts[0], linen.Module) and len(parts) == 3:
        return from_linen(parts[0], parts[1], inputs=parts[2])
    if isinstance(parts[0], nnx.Module) and len(parts) == 2:
        return from_nnx(parts[0], inputs=parts[1])
    raise ModelError(
        f"{reference!r} returned ({', '.join(type(p).__name__ for p in parts)}), expected a Model, "
        "(nnx module, inputs) or (linen module, variables, inputs)"
    )


def rebuild(source: Mapping[str, Any]) -> Model:
    """The model that a checkpoint's ``source`` describes, with parameters yet to be filled in.

    Raises:
        ModelError: A source of an unknown kind, or of another version of this package.
    """
    kind = source.get("kind")
    if kind == "python":
        return from_factory(str(source["reference"]))
    if kind in FAMILIES:
        family = FAMILIES[str(kind)]
        try:
            model = family.make(family.configure(source["config"]))
        except (KeyError, TypeError, ModelError) as error:
            raise ModelError(
                f"the model's configuration is of another version ({error}): inject it again"
            ) from error
        return replace(model, source=dict(source))
    raise ModelError(
        f"models of kind {kind!r} cannot be made again: give a factory, package.module:factory"
    )
