"""The contacts with JAX's own structures, on the version at hand."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import apparate_jax
from apparate_jax.graph import _jaxpr
from tests.zoo import normal

X = normal(0, 4, 8)
W = normal(1, 8, 8)


def equations(fn, *args):
    return _jaxpr.make_jaxpr(fn, args)[0].eqns


@jax.custom_jvp
def _own(x):
    return jnp.sin(x)


_own.defjvp(lambda p, t: (_own(*p), t[0]))


@pytest.mark.parametrize(
    "fn", [jax.jit(jnp.sin), jax.checkpoint(jnp.sin), _own, jax.jit(jax.jit(jnp.sin))]
)
def test_calls_hold_what_they_call(fn):
    (eqn,) = equations(lambda x: fn(x), X)
    inner, consts = _jaxpr.open_jaxpr(_jaxpr.called_jaxpr(eqn))
    assert len(inner.eqns) == 1 and consts == []
    assert _jaxpr.sub_jaxprs(eqn)


def test_other_equations_call_nothing():
    eqns = equations(lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x), X)
    assert [_jaxpr.called_jaxpr(eqn) for eqn in eqns] == [None] * len(eqns)
    assert len(_jaxpr.sub_jaxprs(eqns[-1])) == 2


def test_operands_of_a_scan_are_counted():
    def fn(w, x, xs):
        return lax.scan(lambda c, y: ((c[0] @ w, c[1] + 1), y), (x, 0), xs)

    (eqn,) = (e for e in equations(fn, W, X, X) if e.primitive.name == "scan")
    assert _jaxpr.scan_counts(eqn) == (1, 2)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x @ x.T,
        lambda x: lax.top_k(x, 2)[0],
        lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
        lambda x: lax.scan(lambda c, y: (c + y, c), x[0], x)[1],
        lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x),
        lambda x: jnp.sort(x, -1),
        lambda x: jax.nn.relu(x),
        lambda x: jax.jit(jnp.sin)(x),
        lambda x: jax.checkpoint(jnp.sin)(x),
    ],
)
def test_every_kind_of_equation_can_be_bound_again(fn):
    jaxpr, consts = _jaxpr.make_jaxpr(fn, [X])

    def again(x):
        env = dict(zip([*_jaxpr.const_vars(jaxpr), *jaxpr.invars], [*consts, x], strict=True))
        for eqn in jaxpr.eqns:
            args = [v.val if isinstance(v, _jaxpr.Literal) else env[v] for v in eqn.invars]
            env.update(zip(eqn.outvars, _jaxpr.bind(eqn, args), strict=True))
        return env[jaxpr.outvars[0]]

    np.testing.assert_array_equal(jax.jit(again)(X), jax.jit(fn)(X))


def test_names_and_lines():
    def fn(x):
        with jax.named_scope("a"), jax.named_scope("b"):
            return jnp.sin(x)

    (eqn,) = equations(fn, X)
    assert _jaxpr.name_stack(eqn) == "a/b"
    assert "test_jaxpr.py" in _jaxpr.source_line(eqn)
    file, line, function = _jaxpr.own_frame(eqn)
    assert file == __file__ and line == fn.__code__.co_firstlineno + 2 and "fn" in function


def test_no_other_file_imports_what_may_move():
    root = Path(apparate_jax.__file__).parent
    for file in root.rglob("*.py"):
        if file.name == "_jaxpr.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [str(node.module)]
            moving = ("jax.extend", "jax._src", "jax.interpreters", "jaxlib")
            assert not [m for m in modules if m.startswith(moving)], file
