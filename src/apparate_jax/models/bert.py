"""BERT as a sequence classifier, in Flax NNX.

Post-norm encoder (Devlin et al., 2018, arXiv 1810.04805) with named scopes, so that sites read
``layer_3/attention``. Pooling is either BERT's own (first token through a dense layer and tanh) or
the masked mean of sentence-transformers.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from apparate_jax.core import Model
from apparate_jax.errors import ModelError
from apparate_jax.models.family import Family, Settings, Tensor, Tensors, dense, norm
from apparate_jax.models.transformer import (
    PostNormLayer,
    TransformerConfig,
    attention_bias,
    make_dense,
    make_norm,
    make_table,
    run_layers,
    token_model,
)
from apparate_jax.models.transformer_files import canonical_names, read_settings, refuse


@dataclass(frozen=True, slots=True)
class BertConfig(TransformerConfig):
    """Sizes of a BERT classifier, under the names of Hugging Face's ``config.json``.

    Attributes:
        pooling: ``"first"`` as BERT does, or ``"mean"`` over valid tokens.
    """

    type_vocab_size: int = 2
    pooling: Literal["first", "mean"] = "first"

    def __post_init__(self) -> None:
        TransformerConfig.__post_init__(self)
        if self.pooling not in ("first", "mean"):
            raise ModelError(f"pooling is {self.pooling!r}, expected 'first' or 'mean'")


class Embeddings(nnx.Module):
    """Word, position and token-type embeddings, normalised."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs, *, token_types: int) -> None:
        self.word = make_table(config, config.vocab_size, rngs)
        self.position = make_table(config, config.max_position_embeddings, rngs)
        self.token_type = make_table(config, token_types, rngs)
        self.norm = make_norm(config, rngs)

    def __call__(self, input_ids: jax.Array, positions: jax.Array | None = None) -> jax.Array:
        """Embed tokens, all of type 0.

        Args:
            input_ids: i32[batch, time].
            positions: i32[batch, time], counted from the left unless given.

        Returns:
            f[batch, time, hidden].
        """
        table = self.position
        where = table.embedding[: input_ids.shape[1]] if positions is None else table(positions)
        total = self.word(input_ids) + where + self.token_type.embedding[0]
        normalised: jax.Array = self.norm(total)
        return normalised


class BertClassifier(nnx.Module):
    """BERT with a classification head: ``(input_ids, attention_mask) -> logits``."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs) -> None:
        self.pooling = config.pooling
        self.embeddings = Embeddings(config, rngs, token_types=config.type_vocab_size)
        self.layers = nnx.List(
            [PostNormLayer(config, rngs) for _ in range(config.num_hidden_layers)]
        )
        if config.pooling == "first":
            self.pooler = make_dense(config, config.hidden_size, config.hidden_size, rngs)
        self.classifier = make_dense(config, config.hidden_size, config.num_labels, rngs)

    def __call__(self, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """Classify.

        Args:
            input_ids: i32[batch, time].
            attention_mask: i32[batch, time], 1 for tokens and 0 for padding.

        Returns:
            Logits f[batch, classes].
        """
        with jax.named_scope("embeddings"):
            x = self.embeddings(input_ids)
        x = run_layers(self.layers, x, attention_bias(attention_mask[:, None, None, :], x.dtype))
        with jax.named_scope("pooler"):
            pooled = self._pool(x, attention_mask)
        with jax.named_scope("classifier"):
            return self.classifier(pooled)

    def _pool(self, x: jax.Array, attention_mask: jax.Array) -> jax.Array:
        if self.pooling == "first":
            return jnp.tanh(self.pooler(x[:, 0]))
        mask = attention_mask[..., None].astype(x.dtype)
        return (x * mask).sum(1) / jnp.maximum(mask.sum(1), 1)


def build(config: BertConfig, seed: int | None) -> Model:
    """A BERT classifier; see :attr:`apparate_jax.models.family.Family.build`."""
    return token_model(
        lambda rngs: BertClassifier(config, rngs),
        config,
        seed,
        name="bert",
        pooling=config.pooling,
    )


def backbone_tensors(config: TransformerConfig, prefix: str) -> dict[str, Tensor]:
    """Where the parameters of embeddings and layers stand in Hugging Face's files.

    Args:
        config: Of BERT, or of a family that has its layers.
        prefix: Of the names there, e.g. ``"bert"``.
    """
    names: dict[str, Tensor] = {}
    for table in ("word", "position", "token_type"):
        names[f"embeddings/{table}/embedding"] = Tensor(
            f"{prefix}.embeddings.{table}_embeddings.weight"
        )
    names |= norm("embeddings/norm", f"{prefix}.embeddings.LayerNorm")
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers/{i}", f"{prefix}.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            names |= dense(f"{ours}/attention/{part}", f"{theirs}.attention.self.{part}")
        names |= dense(f"{ours}/attention/output", f"{theirs}.attention.output.dense")
        names |= norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
        names |= dense(f"{ours}/feed_forward/up", f"{theirs}.intermediate.dense")
        names |= dense(f"{ours}/feed_forward/down", f"{theirs}.output.dense")
        names |= norm(f"{ours}/feed_forward_norm", f"{theirs}.output.LayerNorm")
    return names


def tensors(config: BertConfig) -> dict[str, Tensor]:
    """Where the parameters stand in Hugging Face's files."""
    names = backbone_tensors(config, "bert")
    if config.pooling == "first":
        names |= dense("pooler", "bert.pooler.dense")
    return names | dense("classifier", "classifier")


def canonical(found: Tensors) -> dict[str, Any]:
    """Tensors under the names of BertForSequenceClassification."""
    return canonical_names(found, "bert.", ("classifier.",), ("cls.", "qa_outputs."))


BACKBONE = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
"""What BERT and families with its layers support of ``config.json``."""


def read_config(raw: Settings) -> dict[str, Any]:
    """Settings from ``config.json``.

    Raises:
        ModelError: Relative positions, or a decoder.
    """
    refuse(raw, BACKBONE)
    return read_settings(raw, BertConfig)


_MINILM = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}

BERT = Family(
    kind="bert",
    config=BertConfig,
    build=build,
    tensors=tensors,
    head="classifier.weight",
    canonical=canonical,
    read_config=read_config,
    model_types=("bert",),
    # The pooler belongs to models that pool by the first token; others carry it unused.
    ignored=("position_ids", "pooler.dense.weight", "pooler.dense.bias"),
    zoo={
        "minilm-l6": {**_MINILM, "num_hidden_layers": 6},
        "minilm-l12": {**_MINILM, "num_hidden_layers": 12},
        "bert-base": {},
        "bert-large": {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
    },
)
