"""Models whose branches and skips decide where they can be cut, one entry an architecture.

``sites`` is what a reader of the model expects: one a layer, unless a value jumps over it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from tests.hard_models import IMAGE, WIDTH, X, conv, kernels, squares
from tests.zoo import Case, normal


def _shrink(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def _grow(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def vision_transformer() -> Case:
    """Class token and positions broadcast to the batch, its size in reshapes, pre-norm."""
    params = {"patch": normal(1, 48, WIDTH), "cls": normal(2, 1, 1, WIDTH)}
    params |= {"pos": normal(3, 10, WIDTH), "out": normal(4, WIDTH, 3)}
    params["blocks"] = [squares(4)]

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)

    def fn(params, x):
        batch = x.shape[0]
        x = x.reshape(batch, 3, 4, 3, 4, 3).swapaxes(2, 3).reshape(batch, 9, 48) @ params["patch"]
        x = jnp.concatenate([jnp.broadcast_to(params["cls"], (batch, 1, WIDTH)), x], 1)
        x = x + params["pos"]
        for q, k, v, w in params["blocks"]:
            y = norm(x)
            scores = jnp.einsum("bid,bjd->bij", y @ q, y @ k) / 8.0
            x = x + jnp.einsum("bij,bjd->bid", jax.nn.softmax(scores), y @ v)
            x = x + jax.nn.gelu(norm(x) @ w)
        return norm(x)[:, 0] @ params["out"]

    return Case(fn, params, (IMAGE,), 3)


def fourier() -> Case:
    """FNet: a complex transform between layers."""

    def fn(params, x):
        for w in params["w"]:
            x = x + jnp.fft.fft2(x, axes=(1, 2)).real * 0.1
            x = x + jnp.tanh(x @ w)
        return x.mean(1) @ params["out"]

    return Case(fn, {"w": squares(3), "out": normal(1, WIDTH, 3)}, (normal(0, 4, 5, WIDTH),), 3)


def experts() -> Case:
    """A mixture of experts: top-k, sorting, gather and scatter."""

    def moe(x, gate, experts):
        weight, index = lax.top_k(jax.nn.softmax(x @ gate), 2)
        outs = jnp.einsum("bd,edf->bef", x, experts)
        chosen = jnp.take_along_axis(outs, index[:, :, None], 1)
        mixed = (chosen * weight[:, :, None]).sum(1)
        return x + jnp.zeros_like(x).at[:, jnp.argsort(gate[:, 0])].add(jax.nn.relu(mixed))

    def fn(params, x):
        x = jnp.tanh(x @ params["stem"])
        for gate, weights in params["layers"]:
            x = moe(x, gate, weights)
        return x @ params["out"]

    layers = [(normal(i, WIDTH, 4), normal(i + 5, 4, WIDTH, WIDTH)) for i in range(2)]
    params = {"stem": squares(1)[0], "layers": layers, "out": normal(1, WIDTH, 3)}
    return Case(fn, params, (X,), 3)


def densenet() -> Case:
    """Dense connectivity, concatenated as it grows: every concatenation is a cut vertex."""
    params = {"stem": kernels(3, 4)[0], "out": normal(1, 16, 3)}
    params["grow"] = [kernels(width, 4)[0] for width in (4, 8, 12)]

    def fn(params, x):
        x = conv(x, params["stem"])
        for kernel in params["grow"]:
            x = jnp.concatenate([x, conv(jax.nn.relu(x), kernel)], -1)
        return jax.nn.relu(x).mean((1, 2)) @ params["out"]

    return Case(fn, params, (IMAGE,), 4)


def densenet_of_lists() -> Case:
    """The same written with a list: each layer's own output jumps to the end of its block."""
    params = {"stem": kernels(3, 4)[0], "mid": kernels(16, 8)[0], "out": normal(1, 8, 3)}
    params["grow"] = [kernels(width, 4)[0] for width in (4, 8, 12)]

    def fn(params, x):
        features = [conv(x, params["stem"])]
        for kernel in params["grow"]:
            features.append(jax.nn.relu(conv(jnp.concatenate(features, -1), kernel)))
        x = jax.nn.relu(conv(jnp.concatenate(features, -1), params["mid"]))
        return x.mean((1, 2)) @ params["out"]

    return Case(fn, params, (IMAGE,), 3)


def inception() -> Case:
    """Branches of other depths, joined by concatenation, three times."""

    def block(x, p):
        one = jax.nn.relu(conv(x, p["1"]))
        three = jax.nn.relu(conv(jax.nn.relu(conv(x, p["1"])), p["3"]))
        pooled = nn.avg_pool(x, (3, 3), padding="SAME")
        return jnp.concatenate([one, three, conv(pooled, p["1"])], -1)

    def fn(params, x):
        x = jax.nn.relu(conv(x, params["stem"]))
        for p in params["blocks"]:
            x = block(x, p)
        return x.mean((1, 2)) @ params["out"]

    blocks = [{"1": kernels(width, 4, size=1)[0], "3": kernels(4, 4)[0]} for width in (6, 12, 12)]
    params = {"stem": kernels(3, 6)[0], "blocks": blocks, "out": normal(1, 12, 3)}
    return Case(fn, params, (IMAGE,), 4)


def squeeze_excite() -> Case:
    """Depthwise convolutions and a gate from the block's own mean, jumping inside the block."""

    def fn(params, x):
        x = jax.nn.silu(conv(x, params["stem"], 2))
        for depthwise, gate in params["blocks"]:
            y = lax.conv_general_dilated(
                x,
                depthwise,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=8,
            )
            x = x + y * jax.nn.sigmoid(y.mean((1, 2)) @ gate)[:, None, None, :]
        return x.mean((1, 2)) @ params["out"]

    blocks = [(normal(i, 3, 3, 1, 8), normal(i + 3, 8, 8)) for i in range(2)]
    params = {"stem": kernels(3, 8)[0], "blocks": blocks, "out": normal(1, 8, 3)}
    return Case(fn, params, (IMAGE,), 3)


def two_towers() -> Case:
    """Two inputs, two towers, joined at the end: one is cut while it stands alone."""

    def fn(params, a, b):
        for w in params["a"]:
            a = jnp.tanh(a @ w)
        for w in params["b"]:
            b = jnp.tanh(b @ w)
        joined = jnp.tanh(jnp.concatenate([a, b], -1) @ params["join"])
        return joined @ params["out"]

    params = {"a": squares(2), "b": squares(2), "out": normal(2, WIDTH, 3)}
    params["join"] = normal(1, 2 * WIDTH, WIDTH)
    return Case(fn, params, (X, normal(5, 4, WIDTH)), 4)


def u_net() -> Case:
    """A U with skips over everything: cuts are its stem and where the last skip has come back."""

    def fn(params, x):
        x = jax.nn.relu(conv(x, params["stem"]))
        skips = []
        for kernel in params["down"]:
            skips.append(x)
            x = _shrink(jax.nn.relu(conv(x, kernel)))
        x = jax.nn.relu(conv(x, params["mid"]))
        for kernel in params["up"]:
            x = jax.nn.relu(conv(jnp.concatenate([_grow(x), skips.pop()], -1), kernel))
        return x.mean((1, 2)) @ params["out"]

    params = {"stem": kernels(3, 4)[0], "down": kernels(4, 4, 4), "mid": kernels(4, 4)[0]}
    params |= {"up": [kernels(8, 4)[0] for _ in range(2)], "out": normal(1, 4, 3)}
    return Case(fn, params, (IMAGE,), 3)


BRANCHING: dict[str, Callable[[], Case]] = {
    make.__name__: make
    for make in (
        vision_transformer,
        fourier,
        experts,
        densenet,
        densenet_of_lists,
        inception,
        squeeze_excite,
        two_towers,
        u_net,
    )
}


def long_skip() -> Case:
    """No site at all: the embedding jumps over every layer, to the logits themselves."""

    def fn(params, ids):
        with jax.named_scope("embedding"):
            embedded = params["embed"][ids]
        x = embedded
        for w in params["w"]:
            x = jnp.tanh(x @ w)
        return x @ params["out"] + embedded @ params["out"]

    params = {"embed": normal(1, 9, WIDTH), "w": squares(2), "out": normal(1, WIDTH, 3)}
    return Case(fn, params, (np.arange(4),), 0)
