"""DistilBERT (Sanh et al., 2019, arXiv 1910.01108) as a sequence classifier, in Flax NNX.

BERT's layers, half as many, without token types; the head is a dense layer with ReLU on the first
token and the classifier.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from apparate_jax.core import Model
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
from apparate_jax.models.transformer_files import canonical_names, read_settings


@dataclass(frozen=True, slots=True)
class DistilBertConfig(TransformerConfig):
    """Sizes of a DistilBERT classifier."""

    num_hidden_layers: int = 6


class Embeddings(nnx.Module):
    """Word and position embeddings, normalised."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs) -> None:
        self.word = make_table(config, config.vocab_size, rngs)
        self.position = make_table(config, config.max_position_embeddings, rngs)
        self.norm = make_norm(config, rngs)

    def __call__(self, input_ids: jax.Array) -> jax.Array:
        """Embed i32[batch, time] as f[batch, time, hidden]."""
        total = self.word(input_ids) + self.position.embedding[: input_ids.shape[1]]
        normalised: jax.Array = self.norm(total)
        return normalised


class DistilBertClassifier(nnx.Module):
    """DistilBERT with a classification head: ``(input_ids, attention_mask) -> logits``."""

    def __init__(self, config: DistilBertConfig, rngs: nnx.Rngs) -> None:
        self.embeddings = Embeddings(config, rngs)
        self.layers = nnx.List(
            [PostNormLayer(config, rngs) for _ in range(config.num_hidden_layers)]
        )
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
            pooled = jax.nn.relu(self.pooler(x[:, 0]))
        with jax.named_scope("classifier"):
            return self.classifier(pooled)


def build(config: DistilBertConfig, seed: int | None) -> Model:
    """A DistilBERT classifier; see :attr:`apparate_jax.models.family.Family.build`."""
    return token_model(
        lambda rngs: DistilBertClassifier(config, rngs),
        config,
        seed,
        name="distilbert",
        pooling="first",
    )


def tensors(config: DistilBertConfig) -> dict[str, Tensor]:
    """Where the parameters stand in Hugging Face's files."""
    names: dict[str, Tensor] = {}
    for table in ("word", "position"):
        names[f"embeddings/{table}/embedding"] = Tensor(
            f"distilbert.embeddings.{table}_embeddings.weight"
        )
    names |= norm("embeddings/norm", "distilbert.embeddings.LayerNorm")
    parts = {"query": "q_lin", "key": "k_lin", "value": "v_lin", "output": "out_lin"}
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers/{i}", f"distilbert.transformer.layer.{i}"
        for part, stored in parts.items():
            names |= dense(f"{ours}/attention/{part}", f"{theirs}.attention.{stored}")
        names |= norm(f"{ours}/attention_norm", f"{theirs}.sa_layer_norm")
        names |= dense(f"{ours}/feed_forward/up", f"{theirs}.ffn.lin1")
        names |= dense(f"{ours}/feed_forward/down", f"{theirs}.ffn.lin2")
        names |= norm(f"{ours}/feed_forward_norm", f"{theirs}.output_layer_norm")
    return names | dense("pooler", "pre_classifier") | dense("classifier", "classifier")


def canonical(found: Tensors) -> dict[str, Any]:
    """Tensors under the names of DistilBertForSequenceClassification."""
    heads, dropped = ("pre_classifier.", "classifier."), ("vocab_", "qa_outputs.")
    return canonical_names(found, "distilbert.", heads, dropped)


_RENAMED: Mapping[str, str] = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}


def read_config(raw: Settings) -> dict[str, Any]:
    """Settings from ``config.json``."""
    return read_settings(raw, DistilBertConfig, _RENAMED)


DISTILBERT = Family(
    kind="distilbert",
    config=DistilBertConfig,
    build=build,
    tensors=tensors,
    head="classifier.weight",
    canonical=canonical,
    read_config=read_config,
    model_types=("distilbert",),
    ignored=("position_ids",),
    zoo={"distilbert": {}},
)
