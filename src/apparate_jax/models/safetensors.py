"""Tensors of a directory's safetensors files, checked against what a model wants."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from apparate_jax.errors import WeightsError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def read_tensors(path: Path) -> dict[str, jax.Array]:
    """All tensors of one safetensors file.

    Raises:
        WeightsError: If the file is missing, truncated or no safetensors file.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: expected a safetensors file")
    try:
        with safe_open(path, framework="flax") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged or truncated ({path.stat().st_size} bytes: {error}): "
            "copy or download it again"
        ) from error


def read_directory(directory: Path) -> dict[str, jax.Array]:
    """All tensors of a Hugging Face directory, in one file or in shards.

    Raises:
        WeightsError: No weights, an unreadable index, or a missing or damaged shard.
    """
    index = directory / INDEX
    if not index.is_file():
        return read_tensors(directory / SINGLE)
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted({Path(shard).name for shard in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(f"{index} is no index of shards: {error!r}") from error
    tensors: dict[str, jax.Array] = {}
    for shard in shards:
        tensors.update(read_tensors(directory / shard))
    return tensors


def differences(
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Any],
    ignored: tuple[str, ...] = (),
) -> list[str]:
    """What differs in names and shapes, one line each: missing, of another shape, unexpected.

    Args:
        wanted: Shape per tensor name.
        found: Arrays by name.
        ignored: Endings of names that may be there without being wanted.
    """
    missing = [
        f"missing {name} {list(shape)}" for name, shape in wanted.items() if name not in found
    ]
    wrong = [
        f"{name} is {list(np.shape(found[name]))}, expected {list(shape)}"
        for name, shape in wanted.items()
        if name in found and np.shape(found[name]) != shape
    ]
    extra = [
        f"unexpected {name} {list(np.shape(value))}"
        for name, value in found.items()
        if name not in wanted and not name.endswith(ignored)
    ]
    return [*missing, *wrong, *extra]


def check(
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Any],
    where: Path,
    ignored: tuple[str, ...] = (),
) -> None:
    """Check names and shapes; says all that differs.

    Args:
        wanted: Shape per tensor name.
        found: Arrays by name.
        where: For the message.
        ignored: Endings of names that may be there without being wanted.

    Raises:
        WeightsError: Lists missing and extra tensors and wrong shapes.
    """
    differs = differences(wanted, found, ignored)
    if differs:
        shown = "; ".join(differs[:12]) + (
            f"; and {len(differs) - 12} more" if differs[12:] else ""
        )
        raise WeightsError(f"the weights in {where} do not fit the model: {shown}. Nothing loaded")
