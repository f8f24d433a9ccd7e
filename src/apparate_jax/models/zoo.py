"""Models by name, with random weights: for trying shapes, latencies and the commands."""

import difflib
from dataclasses import replace
from typing import Any

from apparate_jax.core import Model
from apparate_jax.errors import ModelError
from apparate_jax.models.families import FAMILIES


def zoo_names() -> tuple[str, ...]:
    """Names that :func:`from_zoo` knows."""
    return tuple(name for family in FAMILIES.values() for name in family.zoo)


def unknown_model(reference: str) -> ModelError:
    """The error for a reference that is neither a file, nor Python, nor in the zoo."""
    close = difflib.get_close_matches(reference, zoo_names(), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return ModelError(
        f"unknown model {reference!r}: {hint}expected a directory with config.json and "
        "safetensors, a file that is there (.onnx, .pth, .pt, .bin, .safetensors), "
        f"package.module:factory, or one of {', '.join(zoo_names())}"
    )


def from_zoo(name: str, *, classes: int | None = None, seed: int = 0, **changes: Any) -> Model:
    """A model of the zoo with random weights.

    Args:
        name: One of :func:`zoo_names`.
        classes: Width of the logits; the family's own number unless given.
        seed: Of the weights.
        **changes: Fields of the configuration, e.g. ``seq_len=64`` or ``dtype="bfloat16"``.

    Raises:
        ModelError: Unknown name (the close ones are listed) or setting.
    """
    for family in FAMILIES.values():
        if name in family.zoo:
            asked = {} if classes is None else {"num_labels": classes}
            config = family.configure({**family.zoo[name], **asked, **changes})
            return replace(family.make(config, seed, random_weights=True), name=name)
    raise unknown_model(name)
