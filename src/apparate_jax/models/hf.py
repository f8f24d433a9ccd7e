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
from apparate_jax.models import adapter, preprocess, safetensors
from apparate_jax.models.families import FAMILIES
from apparate_jax.models.family import Family, Tensors
from apparate_jax.models.tokenizer import read_tokenizer


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


def from_hf(
    directory: str | Path,
    *,
    base: str | Path | None = None,
    classes: int | None = None,
    **changes: Any,
) -> Model:
    """A classifier from a Hugging Face directory, or from a LoRA adapter on one.

    Args:
        directory: Holds ``config.json`` and safetensors, or an adapter in PEFT's layout.
        base: Directory of an adapter's base model, when its configuration does not name one that
            is a directory or an installed package.
        classes: How many classes the model must have; whatever its weights have unless given.
        **changes: Fields of the model's configuration to set, e.g. ``seq_len=256``.

    Returns:
        A model with its tokenizer in :attr:`~apparate_jax.core.Model.assets`, if it has one.

    Raises:
        ModelError: No such directory, an unsupported model type, another number of classes than
            the weights have, or vocabulary files that make no tokenizer.
        WeightsError: Weights that are missing (a backbone without classifier, too), damaged or of
            other names or shapes.
    """
    root = Path(directory)
    if not root.is_dir():
        raise ModelError(
            f"no model directory at {root}: expected config.json and safetensors in it"
        )
    if classes is not None:
        changes["num_labels"] = classes
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
    names, settings = _labels(raw, changes)
    image = preprocess.read(root, read_json) if family.takes_images else None
    size = {"image_size": image.height} if image else {}
    read = {**size, **family.read_config(raw), **settings}
    merged = family.with_classes(read, found, named_after)
    if len(names) != merged["num_labels"]:
        if changes.get("labels"):
            raise ModelError(
                f"{len(names)} labels {list(names)} for the {merged['num_labels']} classes of "
                f"{named_after}: expected one label a class"
            )
        names = ()  # The number of classes was asked for, so these are another task's.
    model = family.load(family.configure(merged), found, named_after)
    name = named_after.resolve().name
    image = preprocess.resized(image, model.inputs[0].shape[0]) if image else model.image
    return replace(model, name=name, labels=names, assets=read_tokenizer(root), image=image)


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
    """Label names, and the changes without them but with the number of classes if it is stated.

    Raises:
        ModelError: ``config.json`` says two numbers, or is for another task.
    """
    task = raw.get("problem_type")
    if task not in (None, "single_label_classification"):
        raise ModelError(
            f"problem_type is {task!r} in config.json, supported: 'single_label_classification' "
            "(answers are one class of several)"
        )
    settings = dict(changes)
    given = settings.pop("labels", None)
    names = tuple(given or _label_names(raw))
    stated = None if given else raw.get("num_labels", raw.get("_num_labels"))
    if "num_labels" not in settings and (names or stated):
        settings["num_labels"] = len(names) or stated
        if stated not in (None, settings["num_labels"]):
            raise ModelError(
                f"config.json says num_labels {stated} and names {len(names)} classes in id2label: "
                "correct it, or say how many classes there are (num_labels, --classes)"
            )
    return names, settings


def _label_names(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes from ``config.json``, none if it has none.

    Raises:
        ModelError: Their keys are not 0, 1, 2, ...
    """
    names = raw.get("id2label") or {}
    try:
        by_class = {int(key): str(name) for key, name in names.items()}
    except (AttributeError, ValueError) as error:
        raise ModelError(f"id2label in config.json does not number classes: {error}") from error
    if sorted(by_class) != list(range(len(by_class))):
        raise ModelError(f"id2label in config.json numbers {sorted(by_class)}, expected 0, 1, ...")
    return tuple(by_class[i] for i in range(len(by_class)))
