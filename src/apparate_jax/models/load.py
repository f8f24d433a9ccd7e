"""A model from what the user typed: a file or directory, a Python reference, or a zoo name."""

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flax import linen, nnx

from apparate_jax.core import Model
from apparate_jax.errors import ApparateError, ModelError
from apparate_jax.models.families import FAMILIES
from apparate_jax.models.hf import from_hf
from apparate_jax.models.onnx import from_onnx, rebuild_onnx
from apparate_jax.models.state_dict import SUFFIXES, from_state_dict
from apparate_jax.models.wrap import from_equinox, from_linen, from_nnx, is_equinox
from apparate_jax.models.zoo import from_zoo, unknown_model, zoo_names


def load_model(reference: str, *, base: str | None = None, **options: Any) -> Model:
    """Load a model.

    Args:
        reference: ``.onnx`` file, state dict (``.pth``, ``.pt``, ``.bin``, ``.safetensors``),
            directory with ``config.json`` and safetensors (or a LoRA adapter),
            ``package.module:factory``, or a name of the zoo.
        base: Base model of an adapter, see :func:`apparate_jax.models.hf.from_hf`.
        **options: Settings of the model, e.g. ``classes``, ``seq_len`` or ``dtype``.

    Raises:
        ModelError: Nothing of that name, a factory that fails or returns something else, or
            settings for a factory, which has none.
        WeightsError: Weights that do not fit.
    """
    if Path(reference).suffix == ".onnx":
        return from_onnx(reference, **options)
    if Path(reference).is_dir():
        return from_hf(reference, base=base, **options)
    if Path(reference).suffix in SUFFIXES:
        return from_state_dict(reference, **options)
    if ":" in reference:
        if options:
            raise ModelError(
                f"{sorted(options)} cannot be set for the factory {reference!r}: expected a "
                "factory that makes the model as it is to be"
            )
        return from_factory(reference)
    if reference in zoo_names():
        return from_zoo(reference, **options)
    if os.sep in reference:
        raise ModelError(f"no model directory at {reference}")
    raise unknown_model(reference)


def from_factory(reference: str) -> Model:
    """The model that the user's own factory makes.

    The factory takes no arguments. It returns a :class:`~apparate_jax.core.Model`, an NNX module
    and its inputs, a Linen module, its variables and its inputs, or an Equinox module, its state if
    it has one, and its inputs; inputs are example arrays with the batch axis, or ``InputSpec``.

    Args:
        reference: ``package.module:factory``; the working directory is searched too.

    Raises:
        ModelError: No such module or factory, or it fails, or another result.
    """
    module_name, _, attribute = reference.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, attribute)
    except Exception as error:  # the user's module may do anything
        raise ModelError(
            f"cannot import {reference!r} ({error}): expected package.module:factory, importable "
            "from here"
        ) from error
    if not callable(factory):
        raise ModelError(f"{reference!r} is a {type(factory).__name__}, expected a function")
    try:
        made = factory()
    except ApparateError:
        raise
    except Exception as error:
        *_, frame = traceback.extract_tb(error.__traceback__)
        raise ModelError(
            f"{reference!r} failed with {type(error).__name__}: {error} "
            f"({Path(frame.filename).name}:{frame.lineno})"
        ) from error
    model = _as_model(made, reference)
    return replace(model, source={"kind": "python", "reference": reference})


def _as_model(made: Any, reference: str) -> Model:
    if isinstance(made, Model):
        return made
    parts = made if isinstance(made, tuple) else (made,)
    if isinstance(parts[0], linen.Module) and len(parts) == 3:
        return from_linen(parts[0], parts[1], inputs=parts[2])
    if isinstance(parts[0], nnx.Module) and len(parts) == 2:
        return from_nnx(parts[0], inputs=parts[1])
    if is_equinox(parts[0]) and len(parts) in (2, 3):
        *state, inputs = parts[1:]
        return from_equinox(parts[0], state=state[0] if state else None, inputs=inputs)
    raise ModelError(
        f"{reference!r} returned ({', '.join(type(p).__name__ for p in parts)}), expected a Model, "
        "(nnx module, inputs), (linen module, variables, inputs), (equinox module, inputs) or "
        "(equinox module, state, inputs)"
    )


def rebuild(source: Mapping[str, Any], assets: Mapping[str, bytes]) -> Model:
    """The model that a checkpoint describes, with parameters yet to be filled in.

    Args:
        source: Its :attr:`~apparate_jax.core.Model.source`.
        assets: Its files by name.

    Raises:
        ModelError: A source of an unknown kind, or of another version of this package.
    """
    kind = source.get("kind")
    if kind == "python":
        return from_factory(str(source["reference"]))
    if kind == "onnx":
        return rebuild_onnx(source, assets)
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
