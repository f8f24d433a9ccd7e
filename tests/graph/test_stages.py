"""Recomposed stages against the monolithic program, exactly, for every model and set of cuts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from apparate_jax.errors import NoCutVertexError
from apparate_jax.graph import Program, trace
from tests.branching_models import BRANCHING
from tests.graph.programs import RandomProgram, random_programs
from tests.hard_models import HARD
from tests.zoo import CASES, Case, normal


def traced(case: Case) -> Program:
    return trace(case.fn, case.params, *case.inputs)


def monolithic(case: Case, program: Program) -> np.ndarray:
    """The user's own function as one program."""
    compiled = jax.jit(case.fn, compiler_options=program.compiler_options or None)
    return np.asarray(compiled(case.params, *case.inputs))


class AllCuts:
    """The logits for any set of sites, from stages that are compiled once each."""

    def __init__(self, program: Program, inputs):
        bounds = [None, *range(len(program.sites)), None]
        self.inputs = inputs
        self.stages = {(a, b): program.stage(a, b) for a, b in itertools.combinations(bounds, 2)}

    def __call__(self, sites) -> np.ndarray:
        value = None
        for bounds in itertools.pairwise([None, *sites, None]):
            value = self.stages[bounds](value, *self.inputs)
        return np.asarray(value)


def subsets(count: int):
    return itertools.chain.from_iterable(
        itertools.combinations(range(count), size) for size in range(count + 1)
    )


@pytest.mark.parametrize("name", CASES)
def test_every_subset_of_the_sites_recomposes_exactly(name):
    case = CASES[name]()
    program = traced(case)
    assert len(program.sites) == case.sites
    expected = monolithic(case, program)
    logits = AllCuts(program, case.inputs)
    for sites in subsets(len(program.sites)):
        np.testing.assert_array_equal(logits(sites), expected, err_msg=f"cut at {sites}")


@pytest.mark.parametrize("name", HARD | BRANCHING)
def test_hard_models_recompose_exactly_at_every_cut_and_at_all_of_them(name):
    case = (HARD | BRANCHING)[name]()
    program = traced(case)
    assert len(program.sites) == case.sites
    expected = monolithic(case, program)
    indices = range(len(program.sites))
    for sites in [[], *([i] for i in indices), list(indices)]:
        value = None
        for stage in program.split(sites):
            value = stage(value, *case.inputs)
        np.testing.assert_array_equal(value, expected, err_msg=f"cut at {sites}")


def rounds_alike(model: RandomProgram) -> bool:
    """No multiplication is added up: uncut, the two may be contracted to one rounding."""
    summed = {a for op in model.ops if op.kind == "add" for a in op.args}
    return not any(i in summed and op.kind in ("scale", "mul") for i, op in enumerate(model.ops))


@settings(max_examples=15, deadline=None)
@given(random_programs(size=9))
def test_every_subset_of_a_random_program_recomposes_exactly(model: RandomProgram):
    case = Case(model, model.params, model.inputs, 0)
    try:
        program = traced(case)
    except NoCutVertexError:
        return
    expected = monolithic(case, program)
    logits = AllCuts(program, case.inputs)
    off = 0.0 if rounds_alike(model) else 1e-5
    for sites in subsets(len(program.sites)):
        message = f"cut at {sites}"
        np.testing.assert_allclose(logits(sites), expected, rtol=off, atol=off, err_msg=message)


@pytest.mark.parametrize("name", ["resnet", "scanned", "nnx", "bfloat16", "folded"])
def test_taps_give_what_the_stages_give(name):
    case = CASES[name]()
    program = traced(case)
    indices = list(range(len(program.sites)))
    compiled = jax.jit(program.taps(indices), compiler_options=program.compiler_options or None)
    values, logits = compiled(*case.inputs)
    shapes = [(site.shape, site.dtype) for site in program.sites]
    assert [(value.shape, value.dtype.name) for value in values] == shapes
    carry = None
    for stage, value in zip(program.split(indices), (*values, logits), strict=True):
        carry = stage(carry, *case.inputs)
        np.testing.assert_array_equal(carry, value)
    assert jax.jit(program.taps([]))(*case.inputs)[0] == ()


def test_a_stage_is_compiled_once(caplog: pytest.LogCaptureFixture):
    case = CASES["mlp"]()
    stages = traced(case).split([0, 1])

    def run(scale: float):
        value = None
        for stage in stages:
            value = stage(value, case.inputs[0] * np.float32(scale))
        return np.asarray(value)

    with jax.log_compiles():
        run(1.0)
        compiled = [r for r in caplog.records if r.getMessage().startswith("Compiling")]
        assert len(compiled) == len(stages)
        first, second = run(2.0), run(3.0)
        again = [r for r in caplog.records if r.getMessage().startswith("Compiling")]
        assert len(again) == len(stages)
    assert (first != second).any()


def test_nothing_is_computed_on_both_sides_of_a_cut():
    case = CASES["resnet"]()
    program = traced(case)
    (whole,) = program.split([])
    stages = program.split(range(len(program.sites)))
    assert sum(len(stage.body.eqns) for stage in stages) == len(whole.body.eqns)
    held = [id(c) for stage in stages for c in stage.constants]
    assert len(held) == len(set(held)) == len(whole.constants)


def test_masks_are_computed_again_and_not_carried():
    """What depends on inputs only is made by every stage that reads it."""
    case = CASES["encoder"]()
    program = traced(case)
    masks = [
        sum(eqn.primitive.name == "select_n" for eqn in stage.body.eqns)
        for stage in program.split(range(len(program.sites)))
    ]
    assert masks == [2, 0, 1, 0, 0]  # each layer's attention; the first also wraps the ids
    assert [site.shape for site in program.sites] == [(4, 12, 64)] * 3 + [(4, 64)]


def test_equal_layers_are_equal_programs():
    """Each reads its parameters in the order of use: compiled once, called with each layer's."""
    case = HARD["fori_loop"]()
    program = traced(case)
    texts = {
        jax.jit(stage.body).lower(stage.constants, stage.carry, *program.input_shapes).as_text()
        for stage in program.split(range(4))[1:-1]
    }
    assert len(texts) == 1


def test_constants_take_the_memory_of_the_parameters_only():
    """What merely enlarges or turns a parameter is not kept beside it."""
    for make in (BRANCHING["vision_transformer"], HARD["tied"]):
        case = make()
        (whole,) = traced(case).split([])
        own = sum(leaf.nbytes for leaf in jax.tree.leaves(case.params))
        assert own <= whole.body.static_bytes < own + 64  # a few scalars


def test_a_stage_runs_inside_of_other_programs():
    for name in ("mlp", "bfloat16"):
        case = CASES[name]()
        first, last = traced(case).split([0])
        inside = jax.jit(lambda x, first=first, last=last: last(first(None, x), x))
        np.testing.assert_allclose(
            np.asarray(inside(*case.inputs), np.float32),
            np.asarray(last(first(None, *case.inputs), *case.inputs), np.float32),
            rtol=1e-2,
        )


def test_half_precision_is_rounded_at_every_cut_alike_and_single_precision_is_left_alone():
    assert traced(CASES["mlp"]()).compiler_options == {}
    assert traced(CASES["bfloat16"]()).compiler_options == {"xla_allow_excess_precision": False}
    # Half-precision weights of a single-precision computation round nothing.
    assert traced(HARD["batch_norm_folded"]()).compiler_options == {}


def test_a_parameter_that_is_the_answer_of_no_equation():
    """Logits that are a slice of a site, and a head that is no more than a bias."""

    def fn(params, x):
        return jnp.tanh(jnp.tanh(x @ params[0]) @ params[1])[:, :3]

    case = Case(fn, [normal(1, 8, 8), normal(2, 8, 8)], (normal(0, 2, 8),), 1)
    program = traced(case)
    assert len(program.sites) == 1
    first, last = program.split([0])
    value = last(first(None, *case.inputs), *case.inputs)
    np.testing.assert_array_equal(value, monolithic(case, program))


def test_a_stage_is_shown_without_its_equations():
    """``jax.jit`` takes ``str`` of a callable object in a bare ``except``: Ctrl-C is lost there."""
    program = traced(CASES["mlp"]())
    body, _ = program.tap_body(range(len(program.sites)))
    assert len(body.eqns) > 1
    assert "StageBody" in repr(body) and len(repr(body)) < 100
