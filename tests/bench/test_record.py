"""Recording: what serving itself answers, to the bit where programs allow it."""

import numpy as np
import pytest

from apparate_jax.bench.record import answer_all, record
from apparate_jax.data import ArrayDataset
from apparate_jax.errors import DataError, NumericsError
from apparate_jax.graph import trace
from apparate_jax.ramps.answer import unpack_answer
from tests.bench import tiny
from tests.serve import models


@pytest.fixture(scope="module")
def parts():
    model = models.mlp()
    program = trace(model.apply, model.params, *model.example_inputs(2))
    return program, model, models.ramps(program)


def stream(rows=37):
    x = np.stack([models.example(seed)["x"] for seed in range(rows)])
    return ArrayDataset("x.npz", (x,), np.arange(rows) % 3)


def test_it_is_what_serving_answers(parts):
    """Every ramp's and the original's answer of the programs that serve, batch by batch."""
    program, model, ramps = parts
    data, seen = stream(), []
    made = record(program, model, ramps, data, tiny.PROFILE, lambda *step: seen.append(step[:2]))
    programs = models.programs(model, (4,))
    programs.warm_merged((0, 1))
    (x,) = data.inputs
    for start in range(0, 36, 4):
        rows = slice(start, start + 4)
        given = programs.route((0, 1), 4).dispatch(programs.ramp_params, [x[rows]])
        *early, final = [unpack_answer(np.asarray(answer)) for answer in given]
        for column, (error, label, _) in enumerate(early):
            np.testing.assert_allclose(made.errors[rows, column], error, rtol=1e-5)
            np.testing.assert_array_equal(made.predictions[rows, column], label)
        np.testing.assert_array_equal(made.final_predictions[rows], final[1])
    assert seen[-1] == (37, 37)


def test_what_it_says_of_itself(parts):
    program, model, ramps = parts
    made = record(program, model, ramps, stream(), tiny.PROFILE)
    assert (made.model, made.workload, len(made)) == (model.name, "x.npz", 37)
    assert made.parts == (("x.npz", 0),) and made.ramps == (0, 1)
    assert made.site_names == tuple(site.name for site in program.sites)
    assert made.depths == tuple(site.depth for site in program.sites)
    assert made.ramp_bytes == tuple(ramp.num_bytes for ramp in ramps)
    np.testing.assert_array_equal(made.labels, np.arange(37) % 3)
    assert made.profile is tiny.PROFILE and "cpu" in made.device


def test_confident_answers_keep_their_errors(parts):
    """The error is the sum of the others' probabilities: distinct far below 6e-8."""
    program, model, ramps = parts
    x = 40 * stream(64).inputs[0]
    made = record(program, model, ramps, ArrayDataset("x", (x,)), tiny.PROFILE)
    assert made.labels is None
    small = made.errors[made.errors < 6e-8]
    assert len(small) == 0 or len(np.unique(small)) > 1


def test_a_ramp_at_some_sites_only(parts):
    program, model, ramps = parts
    made = record(
        program,
        model,
        ramps[1:],
        stream(),
        tiny.PROFILE.__class__("paper", "0", (1,), tiny.PROFILE.shapes),
    )
    assert made.ramps == (1,) and made.errors.shape == (37, 1)


def test_nothing_is_kept_between_batches(parts):
    program, model, ramps = parts
    given = list(answer_all(program, model, ramps, stream()))
    assert [part.rows.stop - part.rows.start for part in given] == [8, 8, 8, 8, 5]
    assert all(part.errors.shape == (len(part.final_predictions), 2) for part in given)


def test_inputs_without_an_answer(parts):
    program, model, ramps = parts
    x = np.array(stream().inputs[0])
    x[[5, 20]] = np.nan
    with pytest.raises(NumericsError, match=r"not finite \(2 of 37 rows: \[5, 20\]\)"):
        record(program, model, ramps, ArrayDataset("x", (x,)), tiny.PROFILE)


def test_no_rows_at_all(parts):
    program, model, ramps = parts
    with pytest.raises(DataError, match="x has no rows: nothing to record"):
        record(program, model, ramps, ArrayDataset("x", (stream().inputs[0][:0],)), tiny.PROFILE)


def test_entropies_and_the_originals_own_errors(parts):
    program, model, ramps = parts
    made = record(program, model, ramps, stream(), tiny.PROFILE)
    assert made.entropies.shape == made.errors.shape
    assert made.final_errors.shape == (37,) and (made.final_errors >= 0).all()
    for column in range(2):  # surer is surer by either score
        errors, entropies = made.errors[:, column], made.entropies[:, column]
        assert np.corrcoef(errors, entropies)[0, 1] > 0.5
