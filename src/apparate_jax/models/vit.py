"""Vision transformer as an image classifier, in Flax NNX.

A pre-norm encoder over patches with a class token in front (Dosovitskiy et al., 2020, arXiv
2010.11929), with named scopes, so that sites read ``layer_3/attention``. It pools by the class
token, and so do ramps.
"""

from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from apparate_jax.core import ImagePreprocess, Model
from apparate_jax.errors import ModelError
from apparate_jax.models import vision
from apparate_jax.models.family import Family, Settings, Tensor, Tensors, conv, dense, norm
from apparate_jax.models.transformer import ACTIVATIONS, attend


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """Sizes of a vision transformer, under the names of Hugging Face's ``config.json``.

    Attributes:
        patch_size: Height and width of a patch.
        qkv_bias: Whether queries, keys and values have a bias.
        image_size: Height and width of the input, a multiple of ``patch_size``.
        num_labels: Classes.
        dtype: Of parameters and computation.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    qkv_bias: bool = True
    patch_size: int = 16
    image_size: int = 224
    num_labels: int = 1000
    dtype: vision.Dtype = "float32"

    def __post_init__(self) -> None:
        vision.check_config(self.image_size, self.num_labels, self.dtype)
        if self.hidden_size % self.num_attention_heads or self.image_size % self.patch_size:
            raise ModelError(
                f"hidden_size {self.hidden_size} and image_size {self.image_size}, expected "
                f"multiples of num_attention_heads {self.num_attention_heads} and of patch_size "
                f"{self.patch_size}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ModelError(
                f"hidden_act is {self.hidden_act!r}, expected one of {sorted(ACTIVATIONS)}"
            )

    @property
    def num_patches(self) -> int:
        """Patches of a picture."""
        return (self.image_size // self.patch_size) ** 2


def _layer_norm(config: ViTConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    dtype = jnp.dtype(config.dtype)
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_eps,
        dtype=dtype,
        param_dtype=dtype,
        use_fast_variance=False,
        rngs=rngs,
    )


class Embeddings(nnx.Module):
    """Patches as tokens behind a class token, with their positions added."""

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs) -> None:
        width, size = config.hidden_size, config.patch_size
        self.dtype = config.dtype
        self.patches = vision.conv(
            3, width, size, rngs, config.dtype, stride=size, bias=True, padding="VALID"
        )
        normal = nnx.initializers.normal(0.02)
        dtype = jnp.dtype(config.dtype)
        self.class_token = nnx.Param(normal(rngs.params(), (1, 1, width), dtype))
        tokens = config.num_patches + 1
        self.position = nnx.Param(normal(rngs.params(), (1, tokens, width), dtype))

    def __call__(self, image: jax.Array) -> jax.Array:
        """Embed f[batch, height, width, 3] as f[batch, 1 + patches, hidden]."""
        patches = self.patches(vision.compute_in(image, self.dtype))
        batch, _, _, width = patches.shape
        first = jnp.broadcast_to(self.class_token[...], (batch, 1, width))
        tokens = jnp.concatenate([first, patches.reshape(batch, -1, width)], axis=1)
        return tokens + self.position[...]


class Attention(nnx.Module):
    """Multi-head self-attention with its output layer."""

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs) -> None:
        width, dtype = config.hidden_size, config.dtype
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (
            vision.linear(width, width, rngs, dtype, bias=config.qkv_bias) for _ in range(3)
        )
        self.output = vision.linear(width, width, rngs, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attend within f[batch, time, hidden]; nothing is hidden."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        return self.output(attend(query, key, value, jnp.zeros((), x.dtype), self.heads))


class Layer(nnx.Module):
    """Attention and feed-forward, each with a norm before and a residual connection around it."""

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs) -> None:
        self.activation = config.hidden_act
        self.attention_norm = _layer_norm(config, rngs)
        self.attention = Attention(config, rngs)
        self.feed_forward_norm = _layer_norm(config, rngs)
        self.up = vision.linear(config.hidden_size, config.intermediate_size, rngs, config.dtype)
        self.down = vision.linear(config.intermediate_size, config.hidden_size, rngs, config.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transform f[batch, time, hidden]."""
        with jax.named_scope("attention"):
            x = x + self.attention(self.attention_norm(x))
        with jax.named_scope("feed_forward"):
            hidden = ACTIVATIONS[self.activation](self.up(self.feed_forward_norm(x)))
            return x + self.down(hidden)


class ViTClassifier(nnx.Module):
    """Vision transformer: ``image f[batch, height, width, 3] -> logits f[batch, classes]``."""

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs) -> None:
        self.embeddings = Embeddings(config, rngs)
        self.layers = nnx.List([Layer(config, rngs) for _ in range(config.num_hidden_layers)])
        self.norm = _layer_norm(config, rngs)
        self.classifier = vision.linear(config.hidden_size, config.num_labels, rngs, config.dtype)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Classify f[batch, height, width, 3]; returns logits f[batch, classes]."""
        with jax.named_scope("embeddings"):
            x = self.embeddings(image)
        for i, layer in enumerate(self.layers):
            with jax.named_scope(f"layer_{i}"):
                x = layer(x)
        with jax.named_scope("norm"):
            first = self.norm(x[:, 0])
        with jax.named_scope("classifier"):
            return self.classifier(first)


def build(config: ViTConfig, seed: int | None) -> Model:
    """A vision transformer; see :attr:`apparate_jax.models.family.Family.build`."""
    size, half = config.image_size, (127.5, 127.5, 127.5)
    image = ImagePreprocess(size, size, mean=half, std=half)
    return vision.build(
        lambda rngs: ViTClassifier(config, rngs), seed, "vit", image, pooling="first"
    )


def tensors(config: ViTConfig) -> dict[str, Tensor]:
    """Where the parameters stand in Hugging Face's files."""
    embeddings = "vit.embeddings"
    names = {
        "embeddings/class_token": Tensor(f"{embeddings}.cls_token"),
        "embeddings/position": Tensor(f"{embeddings}.position_embeddings"),
    } | conv("embeddings/patches", f"{embeddings}.patch_embeddings.projection")
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers/{i}", f"vit.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            names |= dense(
                f"{ours}/attention/{part}",
                f"{theirs}.attention.attention.{part}",
                bias=config.qkv_bias,
            )
        names |= dense(f"{ours}/attention/output", f"{theirs}.attention.output.dense")
        names |= norm(f"{ours}/attention_norm", f"{theirs}.layernorm_before")
        names |= norm(f"{ours}/feed_forward_norm", f"{theirs}.layernorm_after")
        names |= dense(f"{ours}/up", f"{theirs}.intermediate.dense")
        names |= dense(f"{ours}/down", f"{theirs}.output.dense")
    return names | norm("norm", "vit.layernorm") | dense("classifier", "classifier")


_NEWER = {
    "vit.layers.": "vit.encoder.layer.",
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}
"""Names of a module's own state dict in newer versions of transformers, and those of files."""


def canonical(found: Tensors) -> dict[str, Any]:
    """Tensors under the names of Hugging Face's files, whichever version wrote them."""
    renamed = {}
    for name, value in found.items():
        for newer, usual in _NEWER.items():
            name = name.replace(newer, usual)
        renamed[name] = value
    return renamed


def read_config(raw: Settings) -> dict[str, Any]:
    """Settings from ``config.json``.

    Raises:
        ModelError: Pictures of other than three channels.
    """
    if raw.get("num_channels", 3) != 3:
        raise ModelError(f"num_channels is {raw['num_channels']}, supported: 3")
    known = {f.name for f in fields(ViTConfig)} - {"dtype", "num_labels"}
    return {name: raw[name] for name in known & set(raw)}


VIT = Family(
    kind="vit",
    config=ViTConfig,
    build=build,
    tensors=tensors,
    head="classifier.weight",
    canonical=canonical,
    read_config=read_config,
    model_types=("vit",),
    # A pooler that classifiers carry without using it.
    ignored=("vit.pooler.dense.weight", "vit.pooler.dense.bias"),
    zoo={
        "vit-small": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
        "vit-base": {},
    },
)
