"""Kinds of values, dead code and last uses."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from apparate_jax.graph.flow import Kind, last_uses, live_equations
from tests.graph.programs import flow_of
from tests.zoo import CASES, normal

X = normal(0, 4, 8)


def kinds(fn, params, *inputs) -> dict[str, Kind]:
    """Kind of what each primitive computes (the last one of its name)."""
    flow = flow_of(fn, params, *inputs)
    return {eqn.primitive.name: flow.kind(eqn.outvars[0]) for eqn in flow.eqns}


def test_static_cold_and_hot_values():
    def fn(params, x):
        mask = lax.cos(x)
        weight = lax.exp(params["w"])
        return lax.dot(lax.tanh(x), weight) + lax.dot(mask, weight)

    found = kinds(fn, {"w": normal(1, 8, 3)}, X)
    assert found == {
        "cos": Kind.COLD,
        "exp": Kind.STATIC,
        "tanh": Kind.COLD,
        "dot_general": Kind.HOT,
        "add": Kind.HOT,
    }


def test_a_captured_array_makes_weights_of_products_only():
    captured = jnp.asarray(normal(1, 8, 8))

    def fn(params, x):
        x = lax.add(x, captured[:4])
        return lax.dot(lax.tanh(x), captured) * params

    found = kinds(fn, np.float32(2), X)
    assert (found["add"], found["tanh"]) == (Kind.COLD, Kind.COLD)
    assert found["dot_general"] is Kind.HOT


def test_a_value_derived_from_a_parameter_counts_as_one():
    def fn(params, x):
        return lax.mul(x, lax.exp(params)[None].repeat(4, 0))

    assert kinds(fn, normal(1, 8), X)["mul"] is Kind.HOT


def test_dead_code_is_gone_and_static_work_is_not_counted():
    def fn(params, x):
        lax.sin(x @ params)
        params = lax.exp(params)
        return lax.tanh(x @ params)

    flow = flow_of(fn, normal(1, 8, 8), X)
    assert [eqn.primitive.name for eqn in flow.eqns] == ["exp", "dot_general", "tanh"]
    assert [eqn.primitive.name for eqn in flow.online] == ["dot_general", "tanh"]
    assert flow.total_flops == 2 * 4 * 8 * 8 + 4 * 8


def test_arguments_are_told_apart():
    case = CASES["captured"]()
    flow = flow_of(case.fn, case.params, *case.inputs)
    assert len(flow.params) == 0 and len(flow.inputs) == 1 and len(flow.consts) == 4
    assert {flow.kind(v) for v in flow.consts} == {Kind.STATIC}
    assert flow.kind(flow.inputs[0]) is Kind.COLD


def test_last_uses_and_live_equations():
    def fn(params, x):
        a = lax.tanh(x @ params)
        return lax.add(lax.sin(a), a)

    flow = flow_of(fn, normal(1, 8, 8), X)
    product, tanh, sin, _ = (eqn.outvars[0] for eqn in flow.eqns)
    last = last_uses(flow.eqns, flow.out)
    assert (last[product], last[tanh], last[sin], last[flow.out]) == (1, 3, 3, 4)
    names = [eqn.primitive.name for eqn in live_equations(flow.eqns, sin)]
    assert names == ["dot_general", "tanh", "sin"]
    assert live_equations(flow.eqns) == ()
