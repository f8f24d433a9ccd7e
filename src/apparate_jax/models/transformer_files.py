"""How files of transformers over tokens are read: names of tensors, and ``config.json``."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from apparate_jax.errors import ModelError
from apparate_jax.models.family import Settings, Tensors
from apparate_jax.models.transformer import SEQ_LEN, TransformerConfig


def canonical_names(
    found: Tensors, prefix: str, heads: tuple[str, ...], dropped: tuple[str, ...]
) -> dict[str, Any]:
    """Tensors as a classifier names them: with the prefix, today's names of norms, no other head.

    Args:
        found: Tensors of a file.
        prefix: Of the backbone's names; checkpoints of the backbone alone lack it.
        heads: Starts of the names that the classifier has outside of the backbone.
        dropped: Starts of the names that heads for other tasks have.
    """
    renamed = {}
    for name, value in found.items():
        full = name if name.startswith((prefix, *heads, *dropped)) else f"{prefix}{name}"
        full = full.replace("LayerNorm.gamma", "LayerNorm.weight")
        if not full.startswith(dropped):
            renamed[full.replace("LayerNorm.beta", "LayerNorm.bias")] = value
    return renamed


def read_settings(
    raw: Settings,
    config: type[TransformerConfig],
    renamed: Mapping[str, str] | None = None,
    reserved: int = 0,
) -> dict[str, Any]:
    """Settings from ``config.json``, with inputs of :data:`SEQ_LEN` tokens or as many as fit.

    Args:
        raw: The file.
        config: The family's configuration.
        renamed: Its fields that have another name in the file.
        reserved: Positions that no token ever has.
    """
    ours = {f.name for f in fields(config)} - {"dtype", "seq_len", "num_labels", "pooling"}
    theirs = {name: (renamed or {}).get(name, name) for name in ours}
    settings = {ours: raw[name] for ours, name in theirs.items() if raw.get(name) is not None}
    positions = settings.get("max_position_embeddings", config().max_position_embeddings)
    return {"seq_len": min(SEQ_LEN, int(positions) - reserved), **settings}


def refuse(raw: Settings, supported: Mapping[str, Any]) -> None:
    """See that ``config.json`` asks for nothing that is not built.

    Args:
        raw: The file.
        supported: The only value that works, by field; absent and empty ones have it.

    Raises:
        ModelError: A field has another value.
    """
    for name, value in supported.items():
        if raw.get(name) not in (None, value):
            raise ModelError(f"{name} is {raw[name]!r} in config.json, supported: {value!r}")
