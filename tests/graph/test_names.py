"""Names of sites: module paths, else source lines, never a line of JAX or a framework."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from apparate_jax.graph import trace
from apparate_jax.graph.names import user_line, without_line
from tests.graph.programs import flow_of
from tests.zoo import CASES, normal, variables_of

X = normal(0, 4, 8)


def names(fn, params, *inputs) -> list[str]:
    return [site.name for site in trace(fn, params, *inputs).sites]


def line_of(text: str) -> str:
    """``file:line`` of the only line of this file that ends with ``text``."""
    lines = inspect.getsource(inspect.getmodule(line_of)).splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(text)]
    return f"test_names.py:{number}"


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.relu(nn.Dense(8, name="up")(x))


class _Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8, name="stem")(x))
        for i in range(2):
            x = _Block(name=f"block_{i}")(x)
        return nn.Dense(3, name="head")(x)


def test_linen_sites_are_named_after_their_modules():
    assert names(_Net().apply, variables_of(_Net(), X), X) == ["stem", "block_0", "block_1"]


def test_a_module_around_all_of_it_is_left_out():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return _Net(name="backbone")(x)

    assert names(Outer().apply, variables_of(Outer(), X), X) == ["stem", "block_0", "block_1"]


def test_named_scopes_name_sites_of_plain_functions():
    def fn(params, x):
        for i, w in enumerate(params[:-1]):
            with jax.named_scope(f"layer_{i}"):
                x = jnp.tanh(jnp.einsum("bi,ij->bj", x, w))
        return x @ params[-1]

    assert names(fn, [normal(i, 8, 8) for i in range(3)], X) == ["layer_0", "layer_1"]


def test_source_lines_name_sites_without_scopes():
    def fn(params, x):
        x = jax.nn.gelu(x @ params[0])  # first
        x = jax.nn.gelu(x @ params[1])  # second
        return x @ params[2]

    found = names(fn, [normal(i, 8, 8) for i in range(3)], X)
    assert found == [line_of("# first"), line_of("# second")]


def test_equal_lines_are_numbered():
    assert [n.partition("#")[2] for n in names(*CASES["mlp"]()[:2], *CASES["mlp"]().inputs)] == [
        "1",
        "2",
    ]


def test_frameworks_are_not_the_users_own_lines():
    linear = eqx.nn.Linear(8, 8, key=jax.random.key(0))
    arrays, rest = eqx.partition(linear, eqx.is_array)

    def fn(arrays, x):
        layer = jax.vmap(eqx.combine(arrays, rest))
        x = jnp.tanh(layer(x))  # through equinox
        return layer(x)

    (site,) = trace(fn, arrays, X).sites
    assert site.source.startswith(line_of("# through equinox"))


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda f: f])
def test_the_line_of_an_equation_is_where_the_user_wrote_it(wrap):
    def fn(params, x):
        return wrap(lambda x: jax.nn.softmax(x @ params))(x)  # softmax

    for eqn in flow_of(fn, normal(1, 8, 8), X).eqns:
        assert user_line(eqn).startswith(line_of("# softmax") + " (")


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("net.py:12", "net.py"),
        ("net.py:12#3", "net.py#3"),
        ("layer_0/attention", "layer_0/attention"),
        ("block:1/up", "block:1/up"),
    ],
)
def test_a_name_without_its_line(name, rest):
    assert without_line(name) == rest
