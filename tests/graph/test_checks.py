"""Errors say what was got, what was expected and where in the user's code it comes from."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from apparate_jax.errors import ApparateError, GraphError, NoCutVertexError
from apparate_jax.graph import trace
from tests.branching_models import long_skip
from tests.zoo import normal

X = normal(0, 4, 8)
W = [normal(i, 8, 8) for i in range(3)]


def mlp(params, x):
    x = jnp.tanh(x @ params[0])
    return jnp.tanh(x @ params[1]) @ params[2]


def message(fn, params, *inputs, kind=GraphError) -> str:
    with pytest.raises(kind) as caught:
        trace(fn, params, *inputs)
    assert isinstance(caught.value, ApparateError) and isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ((), "no example inputs: give at least one array"),
        (([1, 2],), "input 0 is a list, expected one array per input"),
        ((X, {"mask": X}), "input 1 is a dict, expected one array per input: unpack it"),
        ((X, X[:2]), "float32[4, 8], float32[2, 8]: expected the same leading axis, the batch"),
        ((np.float32(1),), "float32[]: expected the same leading axis"),
    ],
)
def test_inputs(inputs, expected):
    assert expected in message(mlp, W, *inputs)


@pytest.mark.parametrize("leaf", ["gelu", object(), b"x"])
def test_parameters_that_are_no_arrays(leaf):
    said = message(mlp, {"w": W, "activation": leaf}, X)
    assert f"a parameter is a {type(leaf).__name__}, expected arrays" in said
    assert "close over it" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda y: (y, y.sum()), "returned 2 outputs ([0] float32[4, 8], [1] float32[])"),
        (lambda y: (y, y.sum()), "wrap it, lambda params, x: fn(params, x)[0]"),
        (lambda y: {"h": y, "logits": y}, "wrap it, lambda params, x: fn(params, x)['logits']"),
        (lambda y: None, "returned 0 outputs (None)"),
        (lambda y: {"logits": y, "aux": y}, "returned 2 outputs"),
        (lambda y: y.T, "returned float32[8, 4], expected logits [4, classes]"),
        (lambda y: y[:, None], "returned float32[4, 1, 8], expected logits [4, classes]"),
        (lambda y: y[0], "returned float32[8], expected logits [4, classes]"),
        (lambda y: y.sum(), "returned float32[], expected logits [4, classes]"),
        (lambda y: y[:, :1], "returned float32[4, 1], one score for each input, expected logits"),
        (lambda y: y[:, :1], "make both, jnp.concatenate([0 * z, z], axis=1)"),
        (lambda y: y[:, 0], "make both, jnp.stack([0 * z, z], axis=1)"),
        (lambda y: y.argmax(-1), "returned int32[4], expected logits"),
        (lambda y: (y > 0).astype(int), "returned int32[4, 8], expected floating-point logits"),
        (lambda y: 3.0, "returned float, expected logits"),
    ],
)
def test_outputs(change, expected):
    assert expected in message(lambda params, x: change(mlp(params, x)), W, X)


def test_one_array_in_any_container_is_the_logits():
    assert trace(lambda params, x: {"logits": mlp(params, x)}, W, X).num_classes == 8


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_side_effects_are_shown_with_their_line(wrap):
    def printing(params, x):
        x = jnp.tanh(x @ params[0])
        jax.debug.print("mean {}", x.mean())
        return x @ params[1]

    def calling(params, x):
        x = jnp.tanh(x @ params[0])
        io_callback(lambda x: None, None, x)
        return x @ params[1]

    for fn in (printing, calling):
        said = message(wrap(fn), W, X)
        first = fn.__code__.co_firstlineno
        assert "side effect" in said and "remove the callback or print" in said
        assert f"test_checks.py:{first + 2} (" in said and f".{fn.__name__}):" in said
        assert re.search(r"\n  .*(debug_print|callback)", said)


def test_effects_inside_of_control_flow_are_found():
    def fn(params, x):
        def layer(x, w):
            jax.debug.print("{}", x[0, 0])
            return jnp.tanh(x @ w), None

        x, _ = jax.lax.scan(layer, x, jnp.stack(params))
        return x

    said = message(fn, W, X)
    assert f"test_checks.py:{fn.__code__.co_firstlineno + 2}" in said


def test_no_cut_vertex_shows_the_value_that_jumps_over_the_model():
    case = long_skip()
    said = message(case.fn, case.params, *case.inputs, kind=NoCutVertexError)
    line = case.fn.__code__.co_firstlineno + 2
    assert "no cut vertex" in said and f"branching_models.py:{line}" in said
    assert "gather" in said.splitlines()[1]


def test_a_single_layer_is_no_model_to_exit_from():
    said = message(lambda w, x: jnp.tanh(x @ w), W[0], X, kind=NoCutVertexError)
    assert "a single layer, at test_checks.py:" in said and "dot_general" in said


@pytest.mark.parametrize(
    "fn", [lambda w, x: x @ w * 0 + 1 if False else x + 0.0, lambda w, x: w[:4]]
)
def test_logits_of_inputs_or_parameters_alone(fn):
    assert "do not depend on both" in message(fn, W[0], X, kind=NoCutVertexError)


def test_a_folded_batch_is_named():
    """Windows that are folded into the batch and come back only at the end."""

    def fn(params, x):
        x = x.reshape(-1, 2)
        for w in params["w"]:
            x = jnp.tanh(x @ w)
        return (x @ params["out"]).reshape(4, -1)

    params = {"w": [normal(i, 2, 2) for i in range(2)], "out": normal(3, 2, 2)}
    said = message(fn, params, X, kind=NoCutVertexError)
    assert "cut vertices between its layers" in said and "float32[16, 2]" in said
    assert "keep the batch in front" in said and "test_checks.py:" in said


def test_integer_values_are_no_place_for_a_ramp():
    def fn(params, x):
        q = jnp.round(x * 20).astype(jnp.int8)
        product = jax.lax.dot(q, params["w"], preferred_element_type=jnp.int32)
        again = jax.lax.dot(product, params["w"].astype(jnp.int32))
        return again.astype(jnp.float32)

    weights = np.random.default_rng(0).integers(-9, 9, (8, 8)).astype(np.int8)
    said = message(fn, {"w": weights}, X, kind=NoCutVertexError)
    assert "int32[4, 8]" in said and "floating-point" in said


def test_the_users_own_error_is_the_cause():
    def fn(params, x):
        raise KeyError("mine")

    with pytest.raises(GraphError, match=r"raised KeyError at test_checks\.py") as caught:
        trace(fn, W, X)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(GraphError, match="dot_general requires contracting dimensions"):
        trace(mlp, W, X[:, :3])


def test_a_model_that_fails_is_told_with_the_users_line():
    def layers_do_not_fit(params, x):
        hidden = x @ params[0]
        return hidden @ params[1]

    with pytest.raises(GraphError, match=r"test_checks.py:\d+ \(layers_do_not_fit\)") as caught:
        trace(layers_do_not_fit, [np.ones((4, 8), "f"), np.ones((3, 2), "f")], np.ones((2, 4), "f"))
    assert "the model raised TypeError" in str(caught.value)
    assert "float32[2, 4]" in str(caught.value)
