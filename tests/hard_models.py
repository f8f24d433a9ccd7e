"""Models that are hard to cut, one entry a difficulty: what real code does that the zoo does not.

``sites`` is what a reader of the model expects: one a layer, unless a value jumps over it.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from jax import lax

from tests.zoo import Case, normal, variables_of

# Wide enough that LLVM turns every loop over it into the same vector code, whatever it is fused
# with: of a handful of numbers it rounds a multiply-add once or twice, as the neighbours are.
WIDTH = 64
X = normal(0, 4, WIDTH)
IMAGE = normal(0, 4, 12, 12, 3)


def squares(count: int, width: int = WIDTH) -> list[np.ndarray]:
    return [normal(10 + i, width, width) for i in range(count)]


def kernels(*widths: int, size: int = 3) -> list[np.ndarray]:
    pairs = itertools.pairwise(widths)
    return [normal(20 + i, size, size, a, b) for i, (a, b) in enumerate(pairs)]


def conv(x, kernel, stride: int = 1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=numbers)


# Calls, derivatives and control flow


@jax.custom_jvp
def _squash(x):
    return x / (1 + jnp.abs(x))


_squash.defjvp(lambda primals, tangents: (_squash(*primals), tangents[0]))


@jax.custom_vjp
def _clipped(x):
    return jnp.clip(jax.jit(jnp.sin)(x), -1, 1)


_clipped.defvjp(lambda x: (_clipped(x), None), lambda _, g: (g,))


def nested_calls() -> Case:
    """Layers inside of jit inside of remat inside of custom derivatives."""

    @jax.jit
    def dense(w, x):
        return jax.jit(lambda a, b: a @ b)(x, w)

    def fn(params, x):
        x = _squash(dense(params[0], x))
        x = jax.checkpoint(lambda x: _clipped(dense(params[1], x)))(x)
        x = x + jax.jit(jax.checkpoint(lambda w, x: jax.nn.relu(dense(w, x))))(params[2], x)
        return dense(params[3], x)

    return Case(fn, [*squares(3), normal(1, WIDTH, 3)], (X,), 3)


def cond_on_parameters() -> Case:
    """Branches that parameters choose: each is one equation, with sites around it."""
    params = {
        "w": squares(4),
        "deep": np.bool_(True),
        "which": np.int32(1),
        "out": normal(1, WIDTH, 3),
    }

    def fn(params, x):
        a, b, c, d = params["w"]
        x = jnp.tanh(x @ a)
        x = lax.cond(params["deep"], lambda x: jnp.tanh(x @ b) @ c, lambda x: x @ c, x)
        x = lax.switch(params["which"], [jnp.tanh, lambda x: jax.nn.relu(x @ d)], x)
        return x @ params["out"]

    return Case(fn, params, (X,), 3)


def fori_loop() -> Case:
    """A loop over layers that indexes stacked parameters by its counter."""
    params = {"w": np.stack(squares(4)), "out": normal(1, WIDTH, 3)}

    def fn(params, x):
        x = lax.fori_loop(0, 4, lambda i, x: jnp.tanh(x @ params["w"][i]), x)
        return x @ params["out"]

    return Case(fn, params, (X,), 4)


def scan_outputs() -> Case:
    """A reversed scan over layers whose per-layer outputs are used at the very end."""
    params = {"w": np.stack(squares(3)), "out": normal(1, WIDTH, 3)}

    def fn(params, x):
        def layer(x, w):
            x = jnp.tanh(x @ w)
            return x, x.mean(-1)

        x, means = lax.scan(layer, x, params["w"], reverse=True)
        return (x + means.sum(0)[:, None]) @ params["out"]

    # The first layer's mean jumps over what follows, until all means are summed.
    return Case(fn, params, (X,), 2)


class _Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = x + nn.Dense(WIDTH)(nn.relu(nn.Dense(128)(nn.LayerNorm()(x))))
        return nn.Dropout(0.3, deterministic=True)(x), None


class _Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        kwargs = {"variable_axes": {"params": 0}, "split_rngs": {"params": True, "dropout": True}}
        x, _ = nn.scan(nn.remat(_Layer), length=3, **kwargs)()(nn.Dense(WIDTH)(x), None)
        return nn.Dense(3)(x)


def linen_scan() -> Case:
    """``nn.scan`` over ``nn.remat`` layers, with dropout and its RNG collection."""
    variables = variables_of(_Scanned(), X)
    rngs = {"dropout": jax.random.key(7)}
    return Case(lambda v, x: _Scanned().apply(v, x, rngs=rngs), variables, (X,), 4)


def recurrent() -> Case:
    """A recurrent layer over time stays one equation: its steps are not layers."""
    params = {"in": normal(1, 6, WIDTH), "h": squares(1)[0], "up": squares(2)[1]}
    params["out"] = normal(4, WIDTH, 3)

    def fn(params, x):
        def step(h, x):
            h = jnp.tanh(x @ params["in"] + h @ params["h"])
            return h, h

        _, hs = lax.scan(step, jnp.zeros((x.shape[0], WIDTH)), x.swapaxes(0, 1))
        x = jax.nn.relu(hs.swapaxes(0, 1) @ params["up"])
        return x.mean(1) @ params["out"]

    return Case(fn, params, (normal(0, 4, 5, 6),), 2)


# Parameters


def batch_norm_folded() -> Case:
    """Half-precision weights, cast; batch norm folded into kernels: all of it static."""
    halves = [k.astype(np.float16) for k in kernels(3, 8, 8)]
    stats = {"scale": 1 + normal(3, 8), "shift": normal(4, 8), "mean": normal(5, 8)}
    params = {"kernels": halves, "stats": stats | {"var": 1 + normal(6, 8) ** 2}}
    params["out"] = normal(7, 8, 3)

    def fn(params, x):
        stats = params["stats"]
        gain = stats["scale"] * lax.rsqrt(stats["var"] + 1e-5)
        for kernel in params["kernels"]:
            x = conv(x, kernel.astype(jnp.float32) * gain)
            x = jax.nn.relu(x + (stats["shift"] - stats["mean"] * gain))
        return x.mean((1, 2)) @ params["out"]

    return Case(fn, params, (IMAGE,), 2)


def norms_by_division() -> Case:
    """Divisions by what depends on parameters only, which XLA turns into products."""
    params = {"w": squares(3), "var": 1 + normal(1, WIDTH) ** 2, "log_heat": normal(2)}
    params["out"] = normal(3, WIDTH, 3)

    def fn(params, x):
        a, b, c = params["w"]
        x = jax.nn.relu((x @ a) / jnp.sqrt(params["var"] + 1e-5))
        x = jax.nn.relu((x @ b) / (params["var"] / (params["var"] ** 3 + 1)))
        x = jax.nn.softmax((x @ c) / jnp.exp(params["log_heat"]))
        return x @ params["out"]

    return Case(fn, params, (X,), 3)


class _Mixed(nn.Module):
    @nn.compact
    def __call__(self, x):
        half = {"dtype": jnp.bfloat16}
        x = nn.Conv(16, (3, 3), **half)(x)
        for _ in range(2):
            y = nn.BatchNorm(use_running_average=True, **half)(x)
            x = x + nn.relu(nn.Conv(16, (3, 3), **half)(y))
        x = nn.gelu(nn.Dense(WIDTH, **half)(x.mean((1, 2))))
        return nn.Dense(3)(nn.LayerNorm(**half)(x))


def mixed_precision() -> Case:
    """Single-precision weights, computed with in bfloat16: rounded where the model rounds."""
    return Case(_Mixed().apply, variables_of(_Mixed(), IMAGE), (IMAGE,), 3)


def quantised() -> Case:
    """int8 weights and activations: integer cut vertices are no place for a ramp."""
    rng = np.random.default_rng(0)
    weights = [rng.integers(-100, 100, (WIDTH, WIDTH)).astype(np.int8) for _ in range(2)]

    def fn(params, x):
        for w in params["w"]:
            q = jnp.clip(jnp.round(x * 50), -127, 127).astype(jnp.int8)
            product = lax.dot(q, w, preferred_element_type=jnp.int32)
            x = jax.nn.relu(product.astype(jnp.float32) * params["scale"])
        return x @ params["out"]

    params = {"w": weights, "scale": np.float32(1e-3), "out": normal(1, WIDTH, 3)}
    return Case(fn, params, (X,), 2)


def tied() -> Case:
    """One layer applied four times, and the embedding used again as the classifier."""
    params = {"embed": normal(1, 30, WIDTH), "w": squares(1)[0]}

    def fn(params, ids):
        x = params["embed"][ids]
        for _ in range(4):
            x = x + jnp.tanh(x @ params["w"])
        return x.mean(1) @ params["embed"].T

    ids = np.random.default_rng(0).integers(0, 30, (4, 6)).astype(np.int32)
    return Case(fn, params, (ids,), 4)


def key_in_parameters() -> Case:
    """A random key among the parameters: noise that is drawn from it is static."""
    params = {"w": squares(2), "out": normal(1, WIDTH, 3), "key": jax.random.key(3)}

    def fn(params, x):
        noise = jax.random.normal(params["key"], (WIDTH, WIDTH))
        for w in params["w"]:
            x = jnp.tanh(x @ (w + 0.1 * noise))
        return x @ params["out"]

    return Case(fn, params, (X,), 2)


class _DropNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(3)])
        self.norms = nnx.List([nnx.BatchNorm(WIDTH, rngs=rngs) for _ in range(3)])
        self.drop = nnx.Dropout(0.4, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.drop(nnx.relu(norm(layer(x))))
        return self.head(x)


def nnx_dropout() -> Case:
    """NNX in evaluation mode, generator state and all in the parameters."""
    module = _DropNet(nnx.Rngs(0))
    module.eval()
    graphdef, state = nnx.split(module)
    return Case(lambda state, x: nnx.merge(graphdef, state)(x), state, (X,), 3)


HARD: dict[str, Callable[[], Case]] = {
    make.__name__: make
    for make in (
        nested_calls,
        cond_on_parameters,
        fori_loop,
        scan_outputs,
        linen_scan,
        recurrent,
        batch_norm_folded,
        norms_by_division,
        mixed_precision,
        quantised,
        tied,
        key_in_parameters,
        nnx_dropout,
    )
}
