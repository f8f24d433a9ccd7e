"""Models from Hugging Face directories: ``config.json`` and safetensors, read without torch.

A directory may also be a LoRA adapter in PEFT's layout (``adapter_config.json`` and
``adapter_model.safetensors``): its base is found and the low-rank updates are merged into it
(:mod:`apparate_jax.models.adapter`). What the architecture leaves open (pooling, input length,
label names) is read from ``apparate`` in the adapter's ``config.json``, or from the base's own.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from apparate_jax.core import InputSpec, Model
from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models import adapter, safetensors
from apparate_jax.models.bert import BertClassifier, BertConfig
from apparate_jax.models.wrap import from_nnx

TOKENIZER = "tokenizer.json"
_IGNORED = ("position_ids", "pooler.dense.weight", "pooler.dense.bias", "num_batches_tracked")
_NOT_HEADS = ("bert.pooler.", "cls.")


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
    tensors = canonical_names(safetensors.read_directory(base_root))
    merged = adapter.merge(tensors, root, settings)
    own = root / "config.json"
    extra = dict(read_json(own)) if own.is_file() else {}
    return _load(base_root, root, merged, {**extra.get("apparate", {}), **changes})


def _load(
    root: Path, named_after: Path, tensors: Mapping[str, jax.Array], changes: Mapping[str, Any]
) -> Model:
    raw = read_json(root / "config.json")
    kind = raw.get("model_type")
    if kind != "bert":
        raise ModelError(f"model_type is {kind!r} in {root}/config.json, supported: 'bert'")
    labels, settings = _labels(raw, changes)
    config = bert_config(raw, settings)
    params = bert_params(config, canonical_names(tensors), root)
    source = {"kind": "bert", "config": {f.name: getattr(config, f.name) for f in fields(config)}}
    model = build_bert(config)
    assets = {TOKENIZER: (root / TOKENIZER).read_bytes()} if (root / TOKENIZER).is_file() else {}
    return replace(
        model,
        name=named_after.resolve().name,
        params=params,
        labels=labels,
        source=source,
        assets=assets,
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


def bert_config(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> BertConfig:
    """The configuration in a ``config.json``, with changes.

    Raises:
        ModelError: Unknown settings, or values that do not fit together.
    """
    known = {f.name for f in fields(BertConfig)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ModelError(f"unknown settings {unknown}, expected some of {sorted(known)}")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(
            f"position_embedding_type is {raw['position_embedding_type']!r}, supported: 'absolute'"
        )
    given = {name: raw[name] for name in known & set(raw) if name not in ("dtype", "seq_len")}
    longest = int(raw.get("max_position_embeddings", 512))
    return BertConfig(**{"seq_len": min(128, longest), **given, **changes})


def build_bert(config: BertConfig, seed: int | None = None) -> Model:
    """A BERT classifier of this configuration.

    Args:
        config: Sizes.
        seed: Seed of random weights; without one the parameters are shapes only, to be filled in.
    """

    def build() -> BertClassifier:
        return BertClassifier(config, nnx.Rngs(seed or 0))

    module = nnx.eval_shape(build) if seed is None else build()
    specs = [
        InputSpec("input_ids", (config.seq_len,), "int32", 0, config.vocab_size),
        InputSpec("attention_mask", (config.seq_len,), "int32", 1, 2),
    ]
    return from_nnx(
        module, name="bert", inputs=specs, mask="attention_mask", pooling=config.pooling
    )


def canonical_names(tensors: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Tensors under the names of a classifier: with ``bert.``, and today's names of norms."""
    heads = ("bert.", "classifier.", "cls.")
    renamed = {}
    for name, value in tensors.items():
        full = name if name.startswith(heads) else f"bert.{name}"
        full = full.replace("LayerNorm.gamma", "LayerNorm.weight")
        renamed[full.replace("LayerNorm.beta", "LayerNorm.bias")] = value
    return renamed


Rename = tuple[str, bool]
"""Hugging Face's tensor name, and whether it is stored transposed."""


def bert_names(config: BertConfig) -> dict[str, Rename]:
    """Path of each of our parameters -> its name in a Hugging Face file."""
    names: dict[str, Rename] = {}

    def dense(ours: str, theirs: str) -> None:
        names[f"{ours}/kernel"] = (f"{theirs}.weight", True)
        names[f"{ours}/bias"] = (f"{theirs}.bias", False)

    def norm(ours: str, theirs: str) -> None:
        names[f"{ours}/scale"] = (f"{theirs}.weight", False)
        names[f"{ours}/bias"] = (f"{theirs}.bias", False)

    for ours, theirs in (("word", "word"), ("position", "position"), ("token_type", "token_type")):
        names[f"embeddings/{ours}/embedding"] = (
            f"bert.embeddings.{theirs}_embeddings.weight",
            False,
        )
    norm("embeddings/norm", "bert.embeddings.LayerNorm")
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers/{i}", f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            dense(f"{ours}/attention/{part}", f"{theirs}.attention.self.{part}")
        dense(f"{ours}/attention/output", f"{theirs}.attention.output.dense")
        norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
        dense(f"{ours}/feed_forward/up", f"{theirs}.intermediate.dense")
        dense(f"{ours}/feed_forward/down", f"{theirs}.output.dense")
        norm(f"{ours}/feed_forward_norm", f"{theirs}.output.LayerNorm")
    if config.pooling == "first":
        dense("pooler", "bert.pooler.dense")
    dense("classifier", "classifier")
    return names


def bert_params(
    config: BertConfig, tensors: Mapping[str, jax.Array], root: Path
) -> dict[str, jax.Array]:
    """Parameters of :func:`build_bert`'s model from tensors under their canonical names.

    Args:
        config: Sizes.
        tensors: Arrays by Hugging Face's names, see :func:`canonical_names`.
        root: Where they come from, for messages.

    Raises:
        ModelError: No classifier of the right width.
        WeightsError: Lists what is missing, unexpected or of another shape.
    """
    names = bert_names(config)
    shapes = build_bert(config).params
    wanted = {
        theirs: tuple(shapes[ours].shape[::-1] if flipped else shapes[ours].shape)
        for ours, (theirs, flipped) in names.items()
    }
    if "classifier.weight" not in tensors:
        raise WeightsError(
            f"{root} holds an encoder without classifier.weight and classifier.bias: give a model "
            "that was fine-tuned for classification, or an adapter directory on top of this one"
        )
    rows = tensors["classifier.weight"].shape[0]
    if rows != config.num_labels:
        raise ModelError(
            f"the configuration in {root} has {config.num_labels} labels, but classifier.weight "
            f"has {rows} rows: set num_labels or id2label to match"
        )
    unused = _IGNORED if config.pooling == "mean" else _IGNORED[:1]
    kept = {k: v for k, v in tensors.items() if not k.startswith("cls.")}
    safetensors.check(wanted, kept, root, unused)
    dtype: Any = config.param_dtype
    order: Callable[[jax.Array, bool], jax.Array] = lambda value, flipped: (  # noqa: E731
        value.T if flipped else value
    )
    return {
        ours: jnp.asarray(order(tensors[theirs], flipped), dtype)
        for ours, (theirs, flipped) in names.items()
    }
