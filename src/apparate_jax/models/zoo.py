"""Models by name, with random weights: for trying shapes, latencies and the commands."""

import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from apparate_jax.core import Model
from apparate_jax.errors import ModelError
from apparate_jax.models.bert import BertConfig
from apparate_jax.models.hf import build_bert

_BERT: Mapping[str, Mapping[str, int]] = {
    "minilm-l6": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "minilm-l12": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "bert-base": {},
    "bert-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}


def zoo_names() -> tuple[str, ...]:
    """Names that :func:`from_zoo` knows."""
    return tuple(_BERT)


def unknown_model(reference: str) -> ModelError:
    """The error for a reference that is neither a directory, nor Python, nor in the zoo."""
    close = difflib.get_close_matches(reference, zoo_names(), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return ModelError(
        f"unknown model {reference!r}: {hint}expected a directory with config.json and "
        f"safetensors, package.module:factory, or one of {', '.join(zoo_names())}"
    )


def from_zoo(name: str, *, classes: int = 2, seed: int = 0, **changes: Any) -> Model:
    """A model of the zoo with random weights.

    Args:
        name: One of :func:`zoo_names`.
        classes: Width of the logits.
        seed: Of the weights.
        **changes: Fields of the configuration, e.g. ``seq_len=64`` or ``dtype="bfloat16"``.

    Raises:
        ModelError: Unknown name (the close ones are listed) or setting.
    """
    if name not in _BERT:
        raise unknown_model(name)
    known = {f.name for f in fields(BertConfig)}
    if set(changes) - known:
        raise ModelError(
            f"unknown settings {sorted(set(changes) - known)}, expected some of {sorted(known)}"
        )
    config = BertConfig(**{**_BERT[name], "num_labels": classes, **changes})
    described = {f.name: getattr(config, f.name) for f in fields(config)}
    source = {"kind": "bert", "config": described, "random_weights": True}
    return replace(build_bert(config, seed), name=name, source=source)
