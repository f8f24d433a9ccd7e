"""Programs: how many are compiled, atomic and merged routes agree, the background compiler."""

import threading
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.core import InputSpec
from apparate_jax.errors import ConfigError
from apparate_jax.graph import trace
from apparate_jax.models import from_function
from apparate_jax.ramps.answer import unpack_answer
from apparate_jax.serve import programs
from apparate_jax.serve.programs import Programs
from tests.serve import models
from tests.zoo import encoder


def _run(made: Programs, sites: tuple[int, ...], batch: int) -> list[np.ndarray]:
    inputs = made.example_inputs(batch)
    return [np.asarray(a) for a in made.route(sites, batch).dispatch(made.ramp_params, inputs)]


def test_atomic_and_merged_routes_give_the_same_answers():
    made = models.programs(models.mlp())
    made.warm_atomic()
    for sites in ((), (0,), (1,), (0, 1)):
        assert not any(made.route(sites, batch).merged for batch in made.batch_sizes)
        atomic = [_run(made, sites, batch) for batch in made.batch_sizes]
        made.warm_merged(sites)
        assert all(made.route(sites, batch).merged for batch in made.batch_sizes)
        merged = [_run(made, sites, batch) for batch in made.batch_sizes]
        for before, after in zip(atomic, merged, strict=True):
            assert len(before) == len(after) == len(sites) + 1
            for one, other in zip(before, after, strict=True):
                np.testing.assert_array_equal(one[:, 1], other[:, 1])
                np.testing.assert_allclose(one, other, atol=1e-5)


def test_compilations_per_batch_shape_are_counted_and_never_repeated():
    made = models.programs(models.mlp(), (1, 2))
    made.warm_atomic()
    # Per shape: three stages and two heads; the heads are one program with other parameters.
    assert made.num_compiled == 2 * 4
    made.warm_merged((0,))
    # Per shape: the first stage with its head, and what follows; the latter was not there before.
    assert made.num_compiled == 2 * 4 + 2 * 2
    made.warm_atomic()
    made.warm_merged((0,))
    assert made.num_compiled == 2 * 4 + 2 * 2


def test_equal_layers_share_one_program():
    case = encoder()
    specs = [InputSpec("ids", (12,), "int32", 0, 50), InputSpec("mask", (12,), "int32", 1, 2)]
    model = from_function(case.fn, case.params, inputs=specs, mask="mask")
    program = trace(model.apply, model.params, *model.example_inputs(2))
    made = Programs(program, model, batch_sizes=(2,))
    made.warm_atomic()
    # Stages of two equal layers: first attention (with the embedding), feed-forward, attention,
    # the last feed-forward (with the pooling), the classifier. Nothing to share but nothing twice.
    assert made.num_compiled <= len(program.sites) + 1
    (logits,) = _run(made, (), 2)
    expected = np.asarray(jax.jit(case.fn)(case.params, *model.example_inputs(2)))
    np.testing.assert_array_equal(unpack_answer(logits)[2], expected)


def test_the_background_compiler_swaps_merged_programs_in():
    made = models.programs(models.mlp(), (1,))
    made.warm_atomic()
    assert not made.route((0,), 1).merged
    made.prepare((0,)).result(60)
    assert made.route((0,), 1).merged
    before = [
        unpack_answer(np.asarray(a))
        for a in made.atomic_route((0,), 1).dispatch(made.ramp_params, made.example_inputs(1))
    ]
    for one, other in zip(_run(made, (0,), 1), before, strict=True):
        np.testing.assert_allclose(unpack_answer(one)[2], other[2], atol=1e-5)
    made.close()


def test_a_set_that_is_asked_for_later_takes_the_place_of_one_that_is_being_compiled():
    made = models.programs(models.mlp())
    made.warm_atomic()
    first, second = made.prepare((0,)), made.prepare((1,))
    first.result(60)
    second.result(60)
    assert not made.route((0,), made.batch_sizes[-1]).merged
    assert all(made.route((1,), batch).merged for batch in made.batch_sizes)
    made.close()


def test_the_background_compiler_rests_while_there_is_no_time():
    made = models.programs(models.mlp(), (1,))
    made.warm_atomic()
    asked, has_time = threading.Event(), threading.Event()
    compiled = made.prepare((0,), lambda: asked.set() or not has_time.is_set())
    assert asked.wait(10) and not compiled.done()
    assert not made.route((0,), 1).merged
    has_time.set()
    compiled.result(60)
    assert made.route((0,), 1).merged
    made.close()


def test_closing_does_not_wait_for_a_program_that_is_being_compiled():
    made = models.programs(models.mlp())
    made.warm_atomic()
    compiled = made.prepare((0,))
    made.close()
    assert compiled.cancelled() or compiled.exception(60) is None
    assert not made.route((0,), made.batch_sizes[-1]).merged


def test_a_model_of_the_same_architecture_compiles_nothing():
    case = models.mlp()
    made = models.programs(case, (1, 2))
    made.warm_atomic()
    made.warm_merged((0,))
    compiled = made.executables.compiled
    other = models.programs(models.mlp(seed=5), (1, 2), executables=made.executables, gently=True)
    other.warm_atomic()
    other.warm_merged((0,))
    assert made.executables.compiled == compiled
    for sites in ((0,), (0, 1)):
        mine, theirs = _run(made, sites, 2), _run(other, sites, 2)
        assert not np.array_equal(mine[-1], theirs[-1]), "each has its own parameters"
    other.close()
    made.close()


def test_the_last_sets_are_kept_and_older_ones_forgotten(monkeypatch):
    monkeypatch.setattr(programs, "KEPT", 1)
    made = models.programs(models.mlp(), (1,))
    made.warm_atomic()
    made.warm_merged(())
    atomic = made.num_compiled
    for sites in ((0,), (1,)):
        made.prepare(sites).result(60)
    assert made.route((), 1).merged
    assert made.route((1,), 1).merged
    assert not made.route((0,), 1).merged
    assert made.num_compiled <= atomic + 2
    made.close()


def test_ramp_parameters_can_be_replaced_while_serving():
    made = models.programs(models.mlp(), (1,))
    made.warm_merged((0,))
    kernel, bias = made.ramp_params[0]
    before = _run(made, (0,), 1)
    made.ramp_params[0] = (kernel, bias + np.array([100.0, 0.0, 0.0], np.float32))
    after = _run(made, (0,), 1)
    assert after[0][0, 1] == 0
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("sizes", [(), (0, 1), (2, 2)])
def test_batch_sizes_are_checked(sizes):
    with pytest.raises(ConfigError, match="batch sizes"):
        models.programs(models.mlp(), sizes)


def test_routes_need_warm_programs_and_trained_ramps():
    made = models.programs(models.mlp(), (1,))
    with pytest.raises(ConfigError, match=r"call warm_atomic\(\)"):
        made.route((0,), 1)
    made.warm_atomic()
    with pytest.raises(ConfigError, match="with a trained ramp"):
        made.route((7,), 1)
    with pytest.raises(ConfigError, match="expected ascending"):
        made.warm_merged((1, 0))


def test_half_precision_stages_give_the_single_programs_answers():
    model = models.mlp()
    half = replace(
        model,
        params=[jnp.asarray(w, jnp.bfloat16) for w in model.params],
        inputs=(replace(model.inputs[0], dtype="bfloat16"),),
    )
    made = models.programs(half, (4,))
    made.warm_merged(())
    made.warm_merged((0, 1))
    inputs = half.example_inputs(4)
    (whole,) = made.route((), 4).dispatch(made.ramp_params, inputs)
    *_, last = made.route((0, 1), 4).dispatch(made.ramp_params, inputs)
    np.testing.assert_array_equal(whole, last)


def test_answers_may_leave_by_entropy():
    model = models.mlp()
    program = trace(model.apply, model.params, *model.example_inputs(2))
    made = Programs(program, model, models.ramps(program), (1,), "entropy")
    made.warm_atomic()
    x = models.example()["x"]
    answers = list(made.route((0, 1), 1).dispatch(made.ramp_params, [x[None]]))
    early, _ = models.answers(made, x)
    for answer, logits in zip(answers, early, strict=False):
        share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        expected = -(share * np.log(share)).sum() / np.log(3)
        assert float(np.asarray(answer)[0, 0]) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ConfigError, match="criterion is 'gini', expected one of"):
        Programs(program, model, models.ramps(program), (1,), "gini")
