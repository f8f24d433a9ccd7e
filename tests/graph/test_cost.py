"""Operations counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from apparate_jax.graph.cost import flops, is_heavy, size_bytes
from tests.graph.programs import flow_of
from tests.hard_models import conv
from tests.zoo import normal

X = normal(0, 4, 8)


def total(fn, params, *inputs) -> float:
    return flow_of(fn, params, *inputs).total_flops


@pytest.mark.parametrize(
    ("fn", "shape", "count"),
    [
        (lambda w, x: x @ w, (8, 3), 2 * 4 * 8 * 3),
        (lambda w, x: jnp.einsum("bi,bio->bo", x, w), (4, 8, 3), 2 * 4 * 8 * 3),
        (lambda w, x: lax.mul(x, w), (4, 8), 4 * 8),
        (lambda w, x: lax.tanh(lax.mul(x, w)), (4, 8), 2 * 4 * 8),
        (lambda w, x: lax.mul(x, w).sum(1), (4, 8), 4 * 8 + 4 * 8),
        (lambda w, x: lax.mul(x, w).reshape(8, 4).T, (4, 8), 4 * 8),
    ],
)
def test_products_elements_and_reductions(fn, shape, count):
    assert total(fn, normal(1, *shape), X) == count


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (4, 1)])
def test_convolutions(groups, stride):
    x = normal(0, 2, 6, 6, 4)
    kernel = normal(1, 3, 3, 4 // groups, 8)

    def fn(kernel, x):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    side = 6 // stride
    assert total(fn, kernel, x) == 2 * (2 * side * side * 8) * (3 * 3 * 4 // groups)


def test_a_loop_counts_its_body_and_a_branch_its_dearest():
    def loop(w, x):
        return lax.scan(lambda h, x: (jnp.tanh(x @ w + h), None), jnp.zeros((3, 8)), x)[0]

    x = normal(0, 5, 3, 8)
    per_step = 2 * 3 * 8 * 8 + 2 * 3 * 8
    assert total(loop, normal(1, 8, 8), x) == 5 * per_step

    def branch(w, x):
        return lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x)

    assert total(branch, normal(1, 8, 8), X) == pytest.approx(2 * 2 * 4 * 8 * 8, abs=2)


def test_what_is_heavy():
    def heavy(fn, *args) -> list[str]:
        return [e.primitive.name for e in flow_of(fn, *args).eqns if is_heavy(e)]

    assert heavy(lambda w, x: lax.tanh(x @ w) + lax.cumsum(x)[:, :3], normal(1, 8, 3), X) == [
        "dot_general"
    ]
    image, kernel = normal(0, 2, 4, 4, 3), normal(1, 3, 3, 3, 4)
    assert heavy(lambda k, x: conv(x, k), kernel, image) == ["conv_general_dilated"]
    assert heavy(
        lambda w, x: lax.cond(x[0, 0] > 0, lambda x: x @ w, lambda x: x, x), normal(1, 8, 8), X
    ) == ["cond"]


def test_bytes():
    flow = flow_of(lambda w, x: x @ w, normal(1, 8, 3), X)
    assert [size_bytes(v) for v in (*flow.params, *flow.inputs, flow.out)] == [96, 128, 48]
    keyed = flow_of(lambda p, x: x * jax.random.normal(p, (8,)), jax.random.key(0), X)
    assert size_bytes(keyed.params[0]) == 8
    half = flow_of(lambda w, x: x @ w, normal(1, 8, 3).astype(np.float16), X.astype(np.float16))
    assert size_bytes(half.out) == 24


def test_every_equation_of_a_flow_has_a_cost():
    flow = flow_of(
        lambda w, x: jnp.sort(jax.nn.softmax(x @ w), -1).at[:, 0].add(1.0), normal(1, 8, 3), X
    )
    assert all(flops(eqn) >= 0 for eqn in flow.eqns)
    assert sum(map(flops, flow.online)) == flow.total_flops
