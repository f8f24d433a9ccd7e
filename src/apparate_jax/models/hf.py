"""Models from Hugging Face directories: ``config.json`` and safetensors, read without torch.

A directory may also be a LoRA adapter in PEFT's layout (``adapter_config.json`` and
``adapter_model.safetensors``): its base is found and the low-rank updates are merged into it
(:mod:`apparate_jax.models.adapter`). What the architecture leaves open (pooling, input length,
label names) is read from ``apparate`` in the adapter's ``config.json``, or from the base's own.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from apparate_jax.core import Model
from apparate_jax.errors import ModelError
from apparate_jax.models import adapter, safetensors
from apparate_jax.models.families import FAMILIES
from apparate_jax.models.family import Family, Tensors

TOKENIZER = "tokenizer.json"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: If there is no such file, or no object in it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def from_hf(directory: str | Path, *, base: str | Path | None = None, **changes: Any) -> Model:
    """A classifier from a Hugging Face directory, or from a LoRA adapter on one.

    Args:
        directory: Holds ``config.json`` and safetensors, or an adapter in PEFT's layout.
        base: Directory of an adapter's base model, when its configuration does not name one that
            is a directory or an installed package.
        **changes: Fields of the model's configuration to set, e.g. ``seq_len=256``.

    Returns:
        A model with its tokenizer in :attr:`~apparate_jax.core.Model.assets`, if it has one.

    Raises:
        ModelError: No such directory, an unsupported model type, or an encoder without classifier.
        WeightsError: Weights that are missing, damaged or of other names or shapes.
    """
    root = Path(directory)
    if not root.is_dir():
        raise ModelError(
            f"no model directory at {root}: expected config.json and safetensors in it"
        )
    if (root / adapter.CONFIG).is_file():
        return _from_adapter(root, base, changes)
    return _load(root, root, safetensors.read_directory(root), changes)


def _from_adapter(root: Path, base: str | Path | None, changes: Mapping[str, Any]) -> Model:
    settings = adapter.read_config(root)
    base_root = adapter.find_base(settings, root, base)
    family = _family(base_root)
    tensors = family.canonical(safetensors.read_directory(base_root))
    merged = adapter.merge(tensors, root, settings)
    own = root / "config.json"
    extra = dict(read_json(own)) if own.is_file() else {}
    return _load(base_root, root, merged, {**extra.get("apparate", {}), **changes})


def _load(root: Path, named_after: Path, tensors: Tensors, changes: Mapping[str, Any]) -> Model:
    raw = read_json(root / "config.json")
    family = _family(root)
    found = family.canonical(tensors)
    labels, settings = _labels(raw, changes)
    merged = {**family.read_config(raw), **settings}
    model = family.load(
        family.configure(family.with_classes(merged, found, named_after)), found, named_after
    )
    assets = {TOKENIZER: (root / TOKENIZER).read_bytes()} if (root / TOKENIZER).is_file() else {}
    return replace(model, name=named_after.resolve().name, labels=labels, assets=assets)


def _family(root: Path) -> Family:
    """The family that ``config.json`` names.

    Raises:
        ModelError: No configuration, or an unsupported ``model_type`` (lists the supported ones).
    """
    kind = read_json(root / "config.json").get("model_type")
    for family in FAMILIES.values():
        if kind in family.model_types:
            return family
    supported = sorted(t for family in FAMILIES.values() for t in family.model_types)
    raise ModelError(
        f"model_type is {kind!r} in {root}/config.json, supported: {', '.join(supported)}"
    )


def _labels(
    raw: Mapping[str, Any], changes: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Label names, and the changes without them."""
    settings = dict(changes)
    names = settings.pop("labels", None)
    id2label = raw.get("id2label")
    if names is None and isinstance(id2label, dict):
        names = [id2label[key] for key in sorted(id2label, key=int)]
    if names and "num_labels" not in settings:
        settings["num_labels"] = len(names)
    return tuple(names or ()), settings
