"""What ``trace`` gives: sites, arguments of ``split``, other batch sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.errors import GraphError
from apparate_jax.graph import trace
from tests.branching_models import BRANCHING
from tests.hard_models import HARD
from tests.zoo import CASES, normal

ALL = CASES | HARD | BRANCHING


def traced(name):
    case = ALL[name]()
    return trace(case.fn, case.params, *case.inputs)


@pytest.mark.parametrize("name", ALL)
def test_sites_are_ordered_named_apart_and_described(name):
    case = ALL[name]()
    program = trace(case.fn, case.params, *case.inputs)
    sites = program.sites
    assert len(sites) == case.sites <= program.num_cut_vertices
    assert [site.index for site in sites] == list(range(len(sites)))
    depths = [site.depth for site in sites]
    assert depths == sorted(set(depths)) and 0 < depths[0] and depths[-1] < 1
    assert len({site.name for site in sites}) == len(sites)
    assert all(site.shape[0] == program.batch == 4 for site in sites)
    assert all(site.source.split(" ")[0].split(":")[0].endswith(".py") for site in sites)
    assert program.flops > 0


@pytest.mark.parametrize("name", ALL)
def test_other_batch_sizes_have_the_same_sites_and_logits(name):
    case = ALL[name]()
    program = trace(case.fn, case.params, *case.inputs)
    other = program.rebatch(2)
    assert other.batch == other.output.shape[0] == 2
    assert [(s.name, s.shape[1:], s.dtype) for s in other.sites] == [
        (s.name, s.shape[1:], s.dtype) for s in program.sites
    ]
    if name in ("vision_transformer", "encoder", "nnx", "fourier"):
        inputs = [x[:2] for x in case.inputs]
        value = None
        for stage in other.split([0, 1]):
            value = stage(value, *inputs)
        np.testing.assert_array_equal(value, jax.jit(case.fn)(case.params, *inputs))


def test_a_program_describes_its_inputs_and_logits():
    program = traced("encoder")
    assert [(s.shape, s.dtype.name) for s in program.input_shapes] == [((4, 12), "int32")] * 2
    assert (program.output.shape, program.num_classes) == ((4, 2), 2)
    assert program.rebatch(4) is program
    assert "array" not in repr(program) and len(repr(program.split([0])[0])) < 300


def test_shapes_are_enough_to_trace():
    case = CASES["encoder"]()
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in case.inputs]
    program = trace(case.fn, case.params, *shapes)
    assert program.sites == trace(case.fn, case.params, *case.inputs).sites


def test_wide_integers_are_held_as_jax_holds_them():
    case = CASES["encoder"]()
    program = trace(case.fn, case.params, *(x.astype(np.int64) for x in case.inputs))
    assert [s.dtype.name for s in program.input_shapes] == ["int32"] * 2


@pytest.mark.parametrize("sites", [[1, 0], [0, 0], [-1], [2], [0, 7]])
def test_sites_that_do_not_exist_or_are_out_of_order(sites):
    program = traced("mlp")
    for use in (program.split, program.taps):
        with pytest.raises(GraphError, match=r"ascending indices .* between 0 and 1"):
            use(sites)


def test_sites_are_whole_numbers():
    with pytest.raises(TypeError):
        traced("mlp").split([0.5])
    assert len(traced("mlp").split(np.array([0, 1]))) == 3


@pytest.mark.parametrize(("start", "stop"), [(1, 0), (1, 1), (0, 2), (-1, 1)])
def test_a_stage_runs_forward(start, stop):
    with pytest.raises(GraphError, match="ascending"):
        traced("mlp").stage(start, stop)


def test_a_stage_wants_the_carry_of_the_one_before():
    case = CASES["mlp"]()
    first, last = traced("mlp").split([1])
    with pytest.raises(GraphError, match=r"got carry None, expected float32\[4, 8\]"):
        last(None, *case.inputs)
    with pytest.raises(GraphError, match=r"got carry float32\[4, 8\], expected None"):
        first(jnp.ones((4, 8)), *case.inputs)
    assert (first.start, first.stop, last.start, last.stop) == (None, 1, 1, None)


def test_a_batch_of_none_is_refused():
    with pytest.raises(GraphError, match="batch is 0, expected at least 1"):
        traced("mlp").rebatch(0)


def test_a_model_of_one_batch_size_says_so():
    params = [normal(1, 8, 8), normal(2, 8, 3)]

    def fn(params, x):
        return jnp.tanh(x.reshape(4, 8) @ params[0]) @ params[1]

    program = trace(fn, params, normal(0, 4, 2, 4))
    with pytest.raises(GraphError, match=r"traces at batch 4 but not at batch 2: .*reshape"):
        program.rebatch(2)


def test_a_model_of_other_sites_at_another_batch_size_says_so():
    params = [normal(i, 8, 8) for i in range(3)]

    def fn(params, x):
        x = jnp.tanh(x @ params[0])
        if x.shape[0] > 2:
            x = jnp.tanh(x @ params[1])
        return x @ params[2]

    program = trace(fn, params, normal(0, 4, 8))
    with pytest.raises(GraphError, match="2 sites at batch 4 but 1 others at batch 2"):
        program.rebatch(2)


def test_params_of_any_pytree_are_taken_as_they_are():
    w = normal(1, 8, 8)

    def fn(params, x):
        scale, (a, b) = params["scale"], params["layers"]
        return jnp.tanh(x @ a * scale) @ b[:, :3]

    program = trace(fn, {"scale": 2.0, "layers": (w, w)}, normal(0, 4, 8))
    x = normal(0, 4, 8)
    first, last = program.split([0])
    expected = jax.jit(fn)({"scale": jnp.float32(2.0), "layers": (w, w)}, x)
    np.testing.assert_array_equal(last(first(None, x), x), expected)
