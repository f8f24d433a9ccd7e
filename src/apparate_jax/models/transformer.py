"""What transformers over tokens share: configuration, layers and inputs.

Every family takes ``(input_ids, attention_mask)`` and runs its layers under named scopes, so that
sites read ``layer_3/attention``. Masks become a bias that depends on the inputs only: every stage
makes it again, it never travels across a cut.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from apparate_jax.core import InputSpec, Model
from apparate_jax.errors import ModelError
from apparate_jax.models.build import build_model
from apparate_jax.models.wrap import Pooling

HIDDEN = -3e38
"""Added to the attention scores of padding: the lowest that float32 and bfloat16 both hold."""

SEQ_LEN = 128
"""Length of inputs unless asked otherwise."""

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Sizes of a transformer classifier, under BERT's names in Hugging Face's ``config.json``.

    Attributes:
        num_labels: Classes.
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
    layer_norm_eps: float = 1e-12
    num_labels: int = 2
    seq_len: int = SEQ_LEN
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
        if not 1 <= self.seq_len <= self.max_tokens:
            raise ModelError(
                f"seq_len is {self.seq_len}, expected 1 to {self.max_tokens}, the positions that "
                "the model has"
            )
        if self.num_labels < 2:
            raise ModelError(f"num_labels is {self.num_labels}, expected at least 2 classes")
        if self.dtype not in ("float32", "bfloat16"):
            raise ModelError(f"dtype is {self.dtype!r}, expected 'float32' or 'bfloat16'")

    @property
    def max_tokens(self) -> int:
        """The longest input that there are positions for."""
        return self.max_position_embeddings

    @property
    def param_dtype(self) -> jnp.dtype:
        """The dtype of parameters and computation."""
        return jnp.dtype(self.dtype)


def make_dense(
    config: TransformerConfig, inputs: int, outputs: int, rngs: nnx.Rngs, *, bias: bool = True
) -> nnx.Linear:
    """A dense layer in the model's dtype."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=bias,
        dtype=config.param_dtype,
        param_dtype=config.param_dtype,
        kernel_init=nnx.initializers.normal(0.02),
        rngs=rngs,
    )


def make_norm(config: TransformerConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A layer norm over the hidden axis; its statistics are in float32."""
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_eps,
        dtype=config.param_dtype,
        param_dtype=config.param_dtype,
        use_fast_variance=False,
        rngs=rngs,
    )


def make_table(config: TransformerConfig, rows: int, rngs: nnx.Rngs) -> nnx.Embed:
    """An embedding table f[rows, hidden]."""
    return nnx.Embed(
        rows,
        config.hidden_size,
        dtype=config.param_dtype,
        param_dtype=config.param_dtype,
        embedding_init=nnx.initializers.normal(0.02),
        rngs=rngs,
    )


def attention_bias(visible: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """0 where a key is visible and :data:`HIDDEN` elsewhere.

    Args:
        visible: Boolean or integer, broadcastable to ``[batch, heads, queries, keys]``.
        dtype: Of the scores that it is added to.
    """
    return jnp.where(visible > 0, 0.0, HIDDEN).astype(dtype)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array, heads: int
) -> jax.Array:
    """Scaled dot-product attention, ``softmax(q k^T / sqrt(width per head) + bias) v`` per head.

    Args:
        query: f[batch, time, width]; so are key and value.
        key: What is compared with.
        value: What is mixed.
        bias: Broadcastable to f[batch, heads, time, time].
        heads: Number of heads that the width is shared out to.

    Returns:
        f[batch, time, width].
    """
    batch, time, width = query.shape

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(batch, time, heads, width // heads).transpose(0, 2, 1, 3)

    scores = split(query) @ split(key).transpose(0, 1, 3, 2)
    scores = scores / jnp.sqrt(width // heads).astype(query.dtype)
    mixed = jax.nn.softmax(scores + bias, axis=-1) @ split(value)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, time, width)


class Attention(nnx.Module):
    """Multi-head self-attention with its output layer."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = make_dense(config, width, width, rngs)
        self.key = make_dense(config, width, width, rngs)
        self.value = make_dense(config, width, width, rngs)
        self.output = make_dense(config, width, width, rngs)

    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        """Attend within f[batch, time, hidden]; ``bias`` f[batch, 1, 1, time] hides padding."""
        return self.output(attend(self.query(x), self.key(x), self.value(x), bias, self.heads))


class FeedForward(nnx.Module):
    """Two dense layers with the activation between them."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs) -> None:
        self.activation = config.hidden_act
        self.up = make_dense(config, config.hidden_size, config.intermediate_size, rngs)
        self.down = make_dense(config, config.intermediate_size, config.hidden_size, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transform f[batch, time, hidden] token by token."""
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class PostNormLayer(nnx.Module):
    """Attention and feed-forward, each with a residual connection and a norm after it."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs) -> None:
        self.attention = Attention(config, rngs)
        self.attention_norm = make_norm(config, rngs)
        self.feed_forward = FeedForward(config, rngs)
        self.feed_forward_norm = make_norm(config, rngs)

    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        """Transform f[batch, time, hidden]."""
        with jax.named_scope("attention"):
            x = self.attention_norm(x + self.attention(x, bias))
        with jax.named_scope("feed_forward"):
            normalised: jax.Array = self.feed_forward_norm(x + self.feed_forward(x))
            return normalised


class _Layer(Protocol):
    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array: ...


def run_layers(layers: Iterable[_Layer], x: jax.Array, bias: jax.Array) -> jax.Array:
    """Run layers one after the other on f[batch, time, hidden], each in a scope of its own."""
    for i, layer in enumerate(layers):
        with jax.named_scope(f"layer_{i}"):
            x = layer(x, bias)
    return x


def token_model(
    module: Callable[[nnx.Rngs], nnx.Module],
    config: TransformerConfig,
    seed: int | None,
    *,
    name: str,
    pooling: Pooling,
) -> Model:
    """A model of token ids and a mask; see :attr:`apparate_jax.models.family.Family.build`.

    Args:
        module: Makes the network.
        config: Its configuration.
        seed: None for parameters that are shapes only.
        name: Name for people.
        pooling: How the network pools the sequence.
    """
    specs = [
        InputSpec("input_ids", (config.seq_len,), "int32", 0, config.vocab_size),
        InputSpec("attention_mask", (config.seq_len,), "int32", 1, 2),
    ]
    return build_model(
        module,
        seed,
        name=name,
        inputs=specs,
        mask="attention_mask",
        pooling=pooling,
    )
