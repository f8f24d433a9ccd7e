"""Calls are gone, loops over layers are unrolled, loops over time are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from apparate_jax.graph import _jaxpr
from apparate_jax.graph.inline import MAX_UNROLLED_STEPS, inline
from tests.branching_models import BRANCHING
from tests.graph.programs import flow_of
from tests.hard_models import HARD
from tests.zoo import CASES, normal

CALLS = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat"}
X = normal(0, 4, 8)


def primitives(fn, params, *inputs) -> list[str]:
    return [eqn.primitive.name for eqn in flow_of(fn, params, *inputs).eqns]


@pytest.mark.parametrize("name", CASES | HARD | BRANCHING)
def test_no_call_is_left(name):
    case = (CASES | HARD | BRANCHING)[name]()
    assert CALLS.isdisjoint(primitives(case.fn, case.params, *case.inputs))


@pytest.mark.parametrize(("name", "products"), [("scanned", 2 * 8 + 1), ("fori_loop", 4 + 1)])
def test_loops_over_layers_are_unrolled(name, products):
    case = (CASES | HARD)[name]()
    names = primitives(case.fn, case.params, *case.inputs)
    assert "scan" not in names and "while" not in names
    assert names.count("dot_general") == products


def test_a_loop_over_time_stays_one_equation():
    case = HARD["recurrent"]()
    assert primitives(case.fn, case.params, *case.inputs).count("scan") == 1


def test_a_loop_over_very_many_layers_stays_one_equation():
    def fn(params, x):
        return lax.scan(lambda x, w: (jnp.tanh(x * w), None), x, params)[0]

    def loops(steps: int) -> bool:
        return "scan" in primitives(fn, np.ones((steps, 8), np.float32), X)

    assert not loops(MAX_UNROLLED_STEPS)
    assert loops(MAX_UNROLLED_STEPS + 1)


@pytest.mark.parametrize("reverse", [False, True])
def test_an_unrolled_scan_gives_what_the_scan_gave(reverse):
    params = {"w": normal(1, 3, 8, 8), "captured": normal(2, 8)}

    def fn(params, x):
        def layer(carry, w):
            x, count = carry
            x = jnp.tanh(x @ w) + params["captured"]
            return (x, count + 1), (x.sum(-1), count)

        (x, count), (sums, counts) = lax.scan(layer, (x, 0), params["w"], reverse=reverse)
        return x * count + (sums * counts[:, None]).sum(0)[:, None]

    jaxpr, consts = _jaxpr.make_jaxpr(
        lambda *a: fn({"captured": a[0], "w": a[1]}, a[2]),
        [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (params["captured"], params["w"], X)],
    )
    flat, lifted = inline(jaxpr, consts, 2)
    names = [eqn.primitive.name for eqn in flat.eqns]
    assert "scan" not in names and names.count("dot_general") == 3
    leaves = [*consts, params["captured"], params["w"], X]
    (found,) = jax.jit(lambda *a: jax.core.eval_jaxpr(flat, lifted, *a))(*leaves)
    np.testing.assert_allclose(found, jax.jit(fn)(params, X), rtol=1e-6)


def test_names_and_lines_of_inner_equations_are_kept():
    def fn(params, x):
        with jax.named_scope("outer"):
            return jax.jit(jax.named_scope("inner")(lambda x: jnp.tanh(x @ params)))(x)

    flow = flow_of(fn, normal(1, 8, 8), X)
    for eqn in flow.eqns:
        assert [s for s in _jaxpr.name_stack(eqn).split("/") if "jit" not in s] == [
            "outer",
            "inner",
        ]
        file, _, function = _jaxpr.own_frame(eqn)
        assert file.endswith("test_inline.py") and "fn" in function
