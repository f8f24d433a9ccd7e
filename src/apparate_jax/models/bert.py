"""BERT as a sequence classifier, in Flax NNX.

Post-norm encoder (Devlin et al., 2018, arXiv 1810.04805) with named scopes, so that sites read
``layer_3/attention``. Pooling is either BERT's own (first token through a dense layer and tanh) or
the masked mean of sentence-transformers.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from apparate_jax.core import InputSpec, Model
from apparate_jax.errors import ModelError
from apparate_jax.models.family import Family, Settings, Tensor, Tensors, dense, norm
from apparate_jax.models.wrap import from_nnx

HIDDEN = -3e38
"""Added to the attention scores of padding: the lowest that float32 and bfloat16 both hold."""

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Sizes of a BERT classifier, under the names of Hugging Face's ``config.json``.

    Attributes:
        num_labels: Classes.
        pooling: ``"first"`` as BERT does, or ``"mean"`` over valid tokens.
        seq_len: Length that inputs are padded or cut to.
        dtype: ``"float32"`` or ``"bfloat16"``, of parameters and computation.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    num_labels: int = 2
    pooling: Literal["first", "mean"] = "first"
    seq_len: int = 128
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ModelError(
                f"hidden_act is {self.hidden_act!r}, expected one of {sorted(ACTIVATIONS)}"
            )
        if not 1 <= self.seq_len <= self.max_position_embeddings:
            raise ModelError(
                f"seq_len is {self.seq_len}, expected 1 to max_position_embeddings, "
                f"{self.max_position_embeddings}"
            )
        if self.num_labels < 2 or self.pooling not in ("first", "mean"):
            raise ModelError(
                f"num_labels is {self.num_labels} and pooling {self.pooling!r}, expected at least "
                "2 and 'first' or 'mean'"
            )

    @property
    def param_dtype(self) -> jnp.dtype:
        """The dtype of parameters and computation."""
        return jnp.dtype(self.dtype)


def _dense(config: BertConfig, inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    dtype = config.param_dtype
    init = nnx.initializers.normal(0.02)
    return nnx.Linear(inputs, outputs, dtype=dtype, param_dtype=dtype, kernel_init=init, rngs=rngs)


def _norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    dtype = config.param_dtype
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_eps,
        dtype=dtype,
        param_dtype=dtype,
        use_fast_variance=False,
        rngs=rngs,
    )


class Embeddings(nnx.Module):
    """Word, position and token-type embeddings, normalised."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs) -> None:
        def table(rows: int) -> nnx.Embed:
            return nnx.Embed(
                rows,
                config.hidden_size,
                dtype=config.param_dtype,
                param_dtype=config.param_dtype,
                embedding_init=nnx.initializers.normal(0.02),
                rngs=rngs,
            )

        self.word = table(config.vocab_size)
        self.position = table(config.max_position_embeddings)
        self.token_type = table(config.type_vocab_size)
        self.norm = _norm(config, rngs)

    def __call__(self, input_ids: jax.Array) -> jax.Array:
        """Embed i32[batch, time] as f[batch, time, hidden]; all tokens are of type 0."""
        positions = self.position.embedding[: input_ids.shape[1]]
        total = self.word(input_ids) + positions + self.token_type.embedding[0]
        normalised: jax.Array = self.norm(total)
        return normalised


class Attention(nnx.Module):
    """Multi-head self-attention with its output layer."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = _dense(config, width, width, rngs)
        self.key = _dense(config, width, width, rngs)
        self.value = _dense(config, width, width, rngs)
        self.output = _dense(config, width, width, rngs)

    def _split(self, x: jax.Array) -> jax.Array:
        batch, time, width = x.shape
        return x.reshape(batch, time, self.heads, width // self.heads).transpose(0, 2, 1, 3)

    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        """Attend within f[batch, time, hidden]; ``bias`` f[batch, 1, 1, time] hides padding."""
        query, key, value = (self._split(f(x)) for f in (self.query, self.key, self.value))
        scores = query @ key.transpose(0, 1, 3, 2) / jnp.sqrt(query.shape[-1]).astype(x.dtype)
        mixed = jax.nn.softmax(scores + bias, axis=-1) @ value
        return self.output(mixed.transpose(0, 2, 1, 3).reshape(x.shape))


class FeedForward(nnx.Module):
    """Two dense layers with the activation between them."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs) -> None:
        self.activation = config.hidden_act
        self.up = _dense(config, config.hidden_size, config.intermediate_size, rngs)
        self.down = _dense(config, config.intermediate_size, config.hidden_size, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transform f[batch, time, hidden] token by token."""
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class Layer(nnx.Module):
    """Attention and feed-forward, each with a residual connection and a norm after it."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs) -> None:
        self.attention = Attention(config, rngs)
        self.attention_norm = _norm(config, rngs)
        self.feed_forward = FeedForward(config, rngs)
        self.feed_forward_norm = _norm(config, rngs)

    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        """Transform f[batch, time, hidden]."""
        with jax.named_scope("attention"):
            x = self.attention_norm(x + self.attention(x, bias))
        with jax.named_scope("feed_forward"):
            normalised: jax.Array = self.feed_forward_norm(x + self.feed_forward(x))
            return normalised


class BertClassifier(nnx.Module):
    """BERT with a classification head: ``(input_ids, attention_mask) -> logits``."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs) -> None:
        self.pooling = config.pooling
        self.embeddings = Embeddings(config, rngs)
        self.layers = nnx.List([Layer(config, rngs) for _ in range(config.num_hidden_layers)])
        if config.pooling == "first":
            self.pooler = _dense(config, config.hidden_size, config.hidden_size, rngs)
        self.classifier = _dense(config, config.hidden_size, config.num_labels, rngs)

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
        bias = jnp.where(attention_mask[:, None, None, :] > 0, 0.0, HIDDEN).astype(x.dtype)
        for i, layer in enumerate(self.layers):
            with jax.named_scope(f"layer_{i}"):
                x = layer(x, bias)
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

    def module() -> BertClassifier:
        return BertClassifier(config, nnx.Rngs(seed or 0))

    specs = [
        InputSpec("input_ids", (config.seq_len,), "int32", 0, config.vocab_size),
        InputSpec("attention_mask", (config.seq_len,), "int32", 1, 2),
    ]
    return from_nnx(
        nnx.eval_shape(module) if seed is None else module(),
        name="bert",
        inputs=specs,
        mask="attention_mask",
        pooling=config.pooling,
    )


def tensors(config: BertConfig) -> dict[str, Tensor]:
    """Where the parameters stand in Hugging Face's files."""
    names: dict[str, Tensor] = {}
    for table in ("word", "position", "token_type"):
        names[f"embeddings/{table}/embedding"] = Tensor(
            f"bert.embeddings.{table}_embeddings.weight"
        )
    names |= norm("embeddings/norm", "bert.embeddings.LayerNorm")
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers/{i}", f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            names |= dense(f"{ours}/attention/{part}", f"{theirs}.attention.self.{part}")
        names |= dense(f"{ours}/attention/output", f"{theirs}.attention.output.dense")
        names |= norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
        names |= dense(f"{ours}/feed_forward/up", f"{theirs}.intermediate.dense")
        names |= dense(f"{ours}/feed_forward/down", f"{theirs}.output.dense")
        names |= norm(f"{ours}/feed_forward_norm", f"{theirs}.output.LayerNorm")
    if config.pooling == "first":
        names |= dense("pooler", "bert.pooler.dense")
    return names | dense("classifier", "classifier")


def canonical(found: Tensors) -> dict[str, Any]:
    """Tensors as a classifier names them: with ``bert.``, today's names of norms, no LM head."""
    renamed = {}
    for name, value in found.items():
        full = name if name.startswith(("bert.", "classifier.", "cls.")) else f"bert.{name}"
        full = full.replace("LayerNorm.gamma", "LayerNorm.weight")
        if not full.startswith("cls."):
            renamed[full.replace("LayerNorm.beta", "LayerNorm.bias")] = value
    return renamed


def read_config(raw: Settings) -> dict[str, Any]:
    """Settings from ``config.json``.

    Raises:
        ModelError: Relative positions.
    """
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(
            f"position_embedding_type is {raw['position_embedding_type']!r}, supported: 'absolute'"
        )
    known = {f.name for f in fields(BertConfig)} - {"dtype", "seq_len", "num_labels", "pooling"}
    longest = int(raw.get("max_position_embeddings", 512))
    return {"seq_len": min(128, longest), **{name: raw[name] for name in known & set(raw)}}


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
