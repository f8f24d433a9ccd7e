"""The table of small models that graph, ramps and engine are tried on: one entry a kind."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx


class Case(NamedTuple):
    """A model at its example inputs, and how many sites it has."""

    fn: Callable[..., Any]
    params: Any
    inputs: tuple[Any, ...]
    sites: int


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def variables_of(module: nn.Module, *inputs: np.ndarray) -> Any:
    """Random variables of a Linen module, without compiling its initialisers."""

    def fill(path, leaf):
        value = normal(len(jax.tree_util.keystr(path)), *leaf.shape)
        kind = getattr(path[-1], "key", None)
        return 1 + value**2 if kind == "var" else 1 + value if kind == "scale" else value

    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def mlp() -> Case:
    params = [
        {"w": normal(1, 6, 8), "b": normal(2, 8)},
        {"w": normal(3, 8, 8), "b": normal(4, 8)},
        {"w": normal(5, 8, 3), "b": normal(6, 3)},
    ]

    def fn(params, x):
        for layer in params[:-1]:
            x = jax.nn.gelu(x @ layer["w"] + layer["b"])
        return x @ params[-1]["w"] + params[-1]["b"]

    return Case(fn, params, (normal(0, 4, 6),), 2)


class _Block(nn.Module):
    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        norm = partial(nn.BatchNorm, use_running_average=True)
        y = nn.relu(
            norm()(nn.Conv(self.width, (3, 3), (self.stride, self.stride), use_bias=False)(x))
        )
        y = norm()(nn.Conv(self.width, (3, 3), use_bias=False)(y))
        if x.shape != y.shape:
            x = norm()(nn.Conv(self.width, (1, 1), (self.stride, self.stride), use_bias=False)(x))
        return nn.relu(x + y)


class _ResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3))(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for width, stride in ((8, 1), (8, 1), (16, 2), (16, 1)):
            x = _Block(width, stride)(x)
        return nn.Dense(5)(x.mean((1, 2)))


def resnet() -> Case:
    x = normal(0, 4, 16, 16, 3)
    module = _ResNet()
    return Case(module.apply, variables_of(module, x), (x,), 5)


class _VGG(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (8, 8, 16):
            x = nn.relu(nn.Conv(width, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(4)(x)


def vgg() -> Case:
    x = normal(0, 4, 16, 16, 3)
    return Case(_VGG().apply, variables_of(_VGG(), x), (x,), 4)


def _attention(x, mask, p, heads: int):
    batch, length, width = x.shape

    def split(y):
        return y.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)

    q, k, v = (split(x @ p[name]) for name in ("q", "k", "v"))
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(width // heads) + mask
    mixed = jax.nn.softmax(scores) @ v
    return mixed.transpose(0, 2, 1, 3).reshape(batch, length, width) @ p["o"]


def _norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    unit = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return unit * p["scale"] + p["shift"]


def _encoder_params(layers: int, width: int) -> dict[str, Any]:
    shapes = {"q": (width, width), "k": (width, width), "v": (width, width), "o": (width, width)}
    shapes |= {"up": (width, 4 * width), "down": (4 * width, width)}
    stacked = {k: normal(i, layers, *s) for i, (k, s) in enumerate(shapes.items())}
    norms = {
        k: {"scale": 1 + normal(i, layers, width), "shift": normal(i + 2, layers, width)}
        for i, k in enumerate(("n1", "n2"))
    }
    return {
        "embed": normal(7, 50, width),
        "layers": stacked | norms,
        "head": normal(8, width, 2),
    }


def _masked_mean(x, mask):
    weights = mask[..., None].astype(x.dtype)
    return (x * weights).sum(1) / weights.sum(1)


def encoder() -> Case:
    """Post-norm encoder with an attention mask made inside: two sites per layer."""

    def fn(params, ids, mask):
        bias = jnp.where(mask[:, None, None, :] > 0, 0.0, -1e9)
        x = params["embed"][ids]
        for i in range(2):
            p = jax.tree.map(lambda a: a[i], params["layers"])  # noqa: B023
            x = _norm(x + _attention(x, bias, p, 2), p["n1"])
            x = _norm(x + jax.nn.gelu(x @ p["up"]) @ p["down"], p["n2"])
        return _masked_mean(x, mask) @ params["head"]

    return Case(fn, _encoder_params(2, 64), _token_inputs(), 4)


def scanned() -> Case:
    """Pre-norm encoder whose layers are one ``lax.scan``, rematerialised, under jit."""

    def fn(params, ids, mask):
        bias = jnp.where(mask[:, None, None, :] > 0, 0.0, -1e9)

        @jax.checkpoint
        def layer(x, p):
            x = x + _attention(_norm(x, p["n1"]), bias, p, 2)
            return x + jax.nn.gelu(_norm(x, p["n2"]) @ p["up"]) @ p["down"], None

        x, _ = jax.lax.scan(layer, params["embed"][ids], params["layers"])
        return _masked_mean(x, mask) @ params["head"]

    return Case(jax.jit(fn), _encoder_params(2, 64), _token_inputs(), 4)


def _token_inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 13, (4, 1))
    mask = (np.arange(12) < lengths).astype(np.int32)
    return rng.integers(0, 50, (4, 12)).astype(np.int32) * mask, mask


class _NNXNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Linear(6, 16, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(16, 16, rngs=rngs) for _ in range(3)])
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = x + self.drop(nnx.relu(block(x)))
        return self.head(x)


def nnx_module() -> _NNXNet:
    return _NNXNet(nnx.Rngs(0))


def nnx_residual() -> Case:
    """NNX module in evaluation mode, split by hand as any user might."""
    module = nnx_module()
    module.eval()
    graphdef, state = nnx.split(module)
    return Case(lambda state, x: nnx.merge(graphdef, state)(x), state, (normal(0, 4, 6),), 4)


def bfloat16() -> Case:
    case = mlp()
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), case.params)
    return Case(case.fn, params, (jnp.asarray(case.inputs[0], jnp.bfloat16),), 2)


def folded() -> Case:
    """Parameter-only work: a cast from half precision, weight norm, a tied output layer."""
    params = {
        "v": normal(1, 6, 8).astype(np.float16),
        "g": normal(2, 8),
        "mid": normal(3, 8, 6),
    }

    def fn(params, x):
        v = params["v"].astype(jnp.float32)
        w = params["g"] * v / jnp.sqrt((v**2).sum(0, keepdims=True))
        x = jnp.tanh(x @ w)
        x = jnp.tanh(x @ params["mid"])
        return x @ w[:, :4]

    return Case(fn, params, (normal(0, 4, 6),), 2)


def captured() -> Case:
    """Weights and a causal mask that were closed over, no parameters at all.

    The first attention works on the input alone; what it gives is mixed with weights only later.
    """
    weights = [jnp.asarray(normal(i, 8, 8)) for i in range(3)]
    causal = jnp.asarray(np.where(np.tril(np.ones((5, 5))), 0.0, -1e9).astype(np.float32))

    def fn(params, x):
        del params
        bias = causal + jnp.where(x.sum(-1) > 0, 0.0, -1.0)[:, None, :]
        for w in weights:
            x = x + jax.nn.softmax(x @ x.transpose(0, 2, 1) + bias) @ (x @ w)
        return x[:, -1, :3] @ weights[0][:3]

    return Case(fn, {}, (normal(0, 4, 5, 8),), 4)


CASES: dict[str, Callable[[], Case]] = {
    "mlp": mlp,
    "resnet": resnet,
    "vgg": vgg,
    "encoder": encoder,
    "scanned": scanned,
    "nnx": nnx_residual,
    "bfloat16": bfloat16,
    "folded": folded,
    "captured": captured,
}
