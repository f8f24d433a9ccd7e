"""Parameter-only work is done once, when a stage first asks for it."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.graph import trace
from tests.hard_models import HARD
from tests.zoo import CASES, normal

X = normal(0, 4, 8)


def traced(case):
    return trace(case.fn, case.params, *case.inputs)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("folded", {"sqrt", "convert_element_type", "div"}),
        ("batch_norm_folded", {"rsqrt", "convert_element_type", "sub"}),
        ("key_in_parameters", {"random_bits", "random_unwrap", "threefry2x32", "erf_inv"}),
        ("fori_loop", {"dynamic_slice"}),
    ],
)
def test_parameter_only_work_is_in_no_stage(name, gone):
    case = (CASES | HARD)[name]()
    program = traced(case)
    assert gone & {eqn.primitive.name for eqn in program._flow.eqns}  # it was there
    for stage in program.split(range(len(program.sites))):
        assert gone.isdisjoint(eqn.primitive.name for eqn in stage.body.eqns)


def test_layers_are_sliced_out_of_stacked_parameters_once():
    case = CASES["scanned"]()
    widest = max(leaf.size for leaf in jax.tree.leaves(case.params["layers"]))
    for stage in traced(case).split(range(case.sites)):
        assert all(constant.size <= widest // 2 for constant in stage.constants)


@pytest.mark.parametrize("name", ["folded", "scanned", "captured", "key_in_parameters", "nnx"])
def test_all_batch_sizes_share_the_values(name):
    program = traced((CASES | HARD)[name]())
    for site in (None, 0):
        ours = program.stage(site, None).constants
        for batch in (1, 2):
            theirs = program.rebatch(batch).stage(site, None).constants
            assert len(ours) == len(theirs)
            assert all(a is b for a, b in zip(ours, theirs, strict=True))


def test_parameters_are_not_copied_once_they_are_arrays():
    case = CASES["mlp"]()
    params = jax.tree.map(jnp.asarray, case.params)
    program = trace(case.fn, params, *case.inputs)
    (whole,) = program.split([])
    own = {id(leaf) for leaf in jax.tree.leaves(params)}
    assert {id(constant) for constant in whole.constants} == own


def test_other_values_of_the_same_computation_are_told_apart():
    """Two leaves, one computation; two captured arrays of one shape; two literals."""
    one, two = jnp.asarray(normal(1, 8, 8)), jnp.asarray(normal(2, 8, 8))

    def fn(params, x):
        x = jnp.tanh(x @ jnp.exp(params[0]))
        x = jnp.tanh(x @ jnp.exp(params[1]))
        x = jnp.tanh(x @ jnp.sin(one)) @ jnp.sin(two)
        return jnp.tanh(x @ (params[0] * 2.0)) @ (params[0] * 3.0)

    program = trace(fn, [normal(3, 8, 8), normal(4, 8, 8)], X)
    (whole,) = program.split([])
    assert len({np.asarray(c).tobytes() for c in whole.constants}) == len(whole.constants) == 6
    again = program.rebatch(2).split([])[0]
    assert all(a is b for a, b in zip(whole.constants, again.constants, strict=True))


def test_what_depends_on_the_batch_size_is_another_value():
    def fn(params, x):
        rows = jnp.cumsum(jnp.broadcast_to(params["shift"], (x.shape[0], 8)), 0)
        return jnp.tanh(jnp.tanh(x @ params["w"]) + rows) @ params["w"][:, :3]

    params = {"w": normal(1, 8, 8), "shift": normal(2, 8)}
    program = trace(fn, params, X)
    for batch in (1, 2, 4):
        inputs = normal(5, batch, 8)
        (whole,) = program.rebatch(batch).split([])
        np.testing.assert_array_equal(whole(None, inputs), jax.jit(fn)(params, inputs))


def test_other_models_do_not_share():
    case = CASES["folded"]()
    twice = jax.tree.map(lambda leaf: 2 * leaf, case.params)
    ours = traced(case).split([])[0].constants
    theirs = traced(case._replace(params=twice)).split([])[0].constants
    assert all((a != b).any() for a, b in zip(ours, theirs, strict=True))


def test_stages_may_be_asked_for_from_several_threads():
    program = traced(HARD["batch_norm_folded"]())
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(program.stage(None, None).constants))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(a is b for other in found for a, b in zip(found[0], other, strict=True))
