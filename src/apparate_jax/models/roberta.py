"""RoBERTa (Liu et al., 2019, arXiv 1907.11692) as a sequence classifier, in Flax NNX.

BERT's encoder with positions that start after the padding id, and a head of two dense layers on the
first token. XLM-RoBERTa has the same network.

Sharp edge: positions count the tokens that are neither masked nor the padding id, so a sequence may
be padded on either side.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from apparate_jax.core import Model
from apparate_jax.models.bert import BACKBONE, Embeddings, backbone_tensors
from apparate_jax.models.family import Family, Settings, Tensor, Tensors, dense
from apparate_jax.models.transformer import (
    PostNormLayer,
    TransformerConfig,
    attention_bias,
    make_dense,
    run_layers,
    token_model,
)
from apparate_jax.models.transformer_files import canonical_names, read_settings, refuse


@dataclass(frozen=True, slots=True)
class RobertaConfig(TransformerConfig):
    """Sizes of a RoBERTa classifier, under the names of Hugging Face's ``config.json``.

    Attributes:
        pad_token_id: Id of padding; the first token stands at the position after it.
    """

    vocab_size: int = 50265
    max_position_embeddings: int = 514
    layer_norm_eps: float = 1e-5
    type_vocab_size: int = 1
    pad_token_id: int = 1

    @property
    def max_tokens(self) -> int:
        """The longest input that there are positions for."""
        return self.max_position_embeddings - self.pad_token_id - 1


def token_positions(
    input_ids: jax.Array, attention_mask: jax.Array, pad_token_id: int
) -> jax.Array:
    """Positions that count tokens from ``pad_token_id + 1``; padding is at ``pad_token_id``.

    Args:
        input_ids: i32[batch, time].
        attention_mask: i32[batch, time].
        pad_token_id: Id of padding.

    Returns:
        i32[batch, time].
    """
    valid = ((input_ids != pad_token_id) & (attention_mask > 0)).astype(jnp.int32)
    return jnp.cumsum(valid, axis=1) * valid + pad_token_id


class RobertaClassifier(nnx.Module):
    """RoBERTa with a classification head: ``(input_ids, attention_mask) -> logits``."""

    def __init__(self, config: RobertaConfig, rngs: nnx.Rngs) -> None:
        self.pad_token_id = config.pad_token_id
        self.embeddings = Embeddings(config, rngs, token_types=config.type_vocab_size)
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
            positions = token_positions(input_ids, attention_mask, self.pad_token_id)
            x = self.embeddings(input_ids, positions)
        x = run_layers(self.layers, x, attention_bias(attention_mask[:, None, None, :], x.dtype))
        with jax.named_scope("pooler"):
            pooled = jnp.tanh(self.pooler(x[:, 0]))
        with jax.named_scope("classifier"):
            return self.classifier(pooled)


def build(config: RobertaConfig, seed: int | None) -> Model:
    """A RoBERTa classifier; see :attr:`apparate_jax.models.family.Family.build`."""
    return token_model(
        lambda rngs: RobertaClassifier(config, rngs),
        config,
        seed,
        name="roberta",
        pooling="first",
    )


def tensors(config: RobertaConfig) -> dict[str, Tensor]:
    """Where the parameters stand in Hugging Face's files."""
    names = backbone_tensors(config, "roberta")
    return names | dense("pooler", "classifier.dense") | dense("classifier", "classifier.out_proj")


def canonical(found: Tensors) -> dict[str, Any]:
    """Tensors under the names of RobertaForSequenceClassification."""
    return canonical_names(found, "roberta.", ("classifier.",), ("lm_head.", "qa_outputs."))


def read_config(raw: Settings) -> dict[str, Any]:
    """Settings from ``config.json``.

    Raises:
        ModelError: Relative positions, or a decoder.
    """
    refuse(raw, BACKBONE)
    pad = raw.get("pad_token_id")
    return read_settings(raw, RobertaConfig, reserved=(1 if pad is None else int(pad)) + 1)


ROBERTA = Family(
    kind="roberta",
    config=RobertaConfig,
    build=build,
    tensors=tensors,
    head="classifier.out_proj.weight",
    canonical=canonical,
    read_config=read_config,
    model_types=("roberta", "xlm-roberta"),
    # Backbones carry a pooler that the classifier does not use.
    ignored=("position_ids", "pooler.dense.weight", "pooler.dense.bias"),
    zoo={"roberta-base": {}},
)
