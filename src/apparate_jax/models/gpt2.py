"""GPT-2 (Radford et al., 2019) as a sequence classifier, in Flax NNX.

A pre-norm decoder: a token sees itself and what stands before it, and the last token that is no
padding carries the answer. A residual stream crosses every norm, so sites follow the additions:
``layer_3/attention`` and ``layer_3/feed_forward``.

Sharp edges: GPT-2 has no padding token, so the mask alone tells which token is the last one; the
position of a token is its place in the row, so pad on the right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from apparate_jax.core import Model
from apparate_jax.models.family import Family, Settings, Tensor, Tensors, dense, norm
from apparate_jax.models.transformer import (
    FeedForward,
    TransformerConfig,
    attend,
    attention_bias,
    make_dense,
    make_norm,
    make_table,
    run_layers,
    token_model,
)
from apparate_jax.models.transformer_files import canonical_names, read_settings, refuse


@dataclass(frozen=True, slots=True)
class GPT2Config(TransformerConfig):
    """Sizes of a GPT-2 classifier."""

    vocab_size: int = 50257
    hidden_act: str = "gelu_new"
    max_position_embeddings: int = 1024
    layer_norm_eps: float = 1e-5


class CausalAttention(nnx.Module):
    """Multi-head self-attention, with query, key and value from one dense layer."""

    def __init__(self, config: GPT2Config, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = make_dense(config, width, 3 * width, rngs)
        self.output = make_dense(config, width, width, rngs)

    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        """Attend within f[batch, time, hidden]; ``bias`` f[batch, 1, time, time] hides keys."""
        query, key, value = jnp.split(self.qkv(x), 3, axis=-1)
        return self.output(attend(query, key, value, bias, self.heads))


class PreNormLayer(nnx.Module):
    """Attention and feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, config: GPT2Config, rngs: nnx.Rngs) -> None:
        self.attention_norm = make_norm(config, rngs)
        self.attention = CausalAttention(config, rngs)
        self.feed_forward_norm = make_norm(config, rngs)
        self.feed_forward = FeedForward(config, rngs)

    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        """Transform f[batch, time, hidden]."""
        with jax.named_scope("attention"):
            x = x + self.attention(self.attention_norm(x), bias)
        with jax.named_scope("feed_forward"):
            return x + self.feed_forward(self.feed_forward_norm(x))


class GPT2Classifier(nnx.Module):
    """GPT-2 with a classification head: ``(input_ids, attention_mask) -> logits``."""

    def __init__(self, config: GPT2Config, rngs: nnx.Rngs) -> None:
        self.word = make_table(config, config.vocab_size, rngs)
        self.position = make_table(config, config.max_position_embeddings, rngs)
        self.layers = nnx.List(
            [PreNormLayer(config, rngs) for _ in range(config.num_hidden_layers)]
        )
        self.norm = make_norm(config, rngs)
        self.score = make_dense(config, config.hidden_size, config.num_labels, rngs, bias=False)

    def __call__(self, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """Classify.

        Args:
            input_ids: i32[batch, time].
            attention_mask: i32[batch, time], 1 for tokens and 0 for padding.

        Returns:
            Logits f[batch, classes].
        """
        time = input_ids.shape[1]
        with jax.named_scope("embeddings"):
            x = self.word(input_ids) + self.position.embedding[:time]
        visible = jnp.tril(jnp.ones((time, time), bool)) & (attention_mask[:, None, None, :] > 0)
        x = run_layers(self.layers, x, attention_bias(visible, x.dtype))
        with jax.named_scope("pooler"):
            last = jnp.where(attention_mask > 0, jnp.arange(time), 0).max(axis=1)
            pooled = self.norm(jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0])
        with jax.named_scope("score"):
            return self.score(pooled)


def build(config: GPT2Config, seed: int | None) -> Model:
    """A GPT-2 classifier; see :attr:`apparate_jax.models.family.Family.build`."""
    return token_model(
        lambda rngs: GPT2Classifier(config, rngs),
        config,
        seed,
        name="gpt2",
        pooling="last",
    )


def tensors(config: GPT2Config) -> dict[str, Tensor]:
    """Where the parameters stand in Hugging Face's files."""
    names = {
        "word/embedding": Tensor("transformer.wte.weight"),
        "position/embedding": Tensor("transformer.wpe.weight"),
    }
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers/{i}", f"transformer.h.{i}"
        names |= norm(f"{ours}/attention_norm", f"{theirs}.ln_1")
        names |= _conv1d(f"{ours}/attention/qkv", f"{theirs}.attn.c_attn")
        names |= _conv1d(f"{ours}/attention/output", f"{theirs}.attn.c_proj")
        names |= norm(f"{ours}/feed_forward_norm", f"{theirs}.ln_2")
        names |= _conv1d(f"{ours}/feed_forward/up", f"{theirs}.mlp.c_fc")
        names |= _conv1d(f"{ours}/feed_forward/down", f"{theirs}.mlp.c_proj")
    return names | norm("norm", "transformer.ln_f") | dense("score", "score", bias=False)


def _conv1d(ours: str, theirs: str) -> dict[str, Tensor]:
    """GPT-2's dense layer, ``Conv1D``: stored ``[in, out]``, as ours is."""
    return {f"{ours}/kernel": Tensor(f"{theirs}.weight"), f"{ours}/bias": Tensor(f"{theirs}.bias")}


def canonical(found: Tensors) -> dict[str, Any]:
    """Tensors under the names of GPT2ForSequenceClassification."""
    return canonical_names(found, "transformer.", ("score.",), ("lm_head.", "qa_outputs."))


_RENAMED: Mapping[str, str] = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "hidden_act": "activation_function",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
}


def read_config(raw: Settings) -> dict[str, Any]:
    """Settings from ``config.json``.

    Raises:
        ModelError: Attention that is scaled in another way, or looks at another sequence.
    """
    refuse(
        raw,
        {
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
    )
    settings = read_settings(raw, GPT2Config, _RENAMED)
    width = int(settings.get("hidden_size", GPT2Config().hidden_size))
    return {"intermediate_size": 4 * width, **settings}


GPT2 = Family(
    kind="gpt2",
    config=GPT2Config,
    build=build,
    tensors=tensors,
    head="score.weight",
    canonical=canonical,
    read_config=read_config,
    model_types=("gpt2",),
    # Causal masks, which old files hold as weights.
    ignored=(".attn.bias", ".attn.masked_bias"),
    zoo={
        "gpt2": {},
        "gpt2-medium": {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
    },
)
