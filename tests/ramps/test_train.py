import gc
import weakref
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.core import InputSpec, Model
from apparate_jax.data import ArrayDataset
from apparate_jax.errors import DataError, NumericsError, RampError
from apparate_jax.graph import trace
from apparate_jax.ramps.answer import answer_error
from apparate_jax.ramps.heads import head_logits, pool
from apparate_jax.ramps.train import (
    TrainConfig,
    fit_ramps,
    head_kinds,
    train_ramps,
    training_features,
)
from tests.ramps.tiny import sentences, tiny_encoder

ALL = TrainConfig(data_frac=1.0, max_epochs=25)


@pytest.fixture(scope="module")
def data():
    return ArrayDataset("sentences", sentences(600))


@pytest.fixture(scope="module")
def trained(data):
    tiny = tiny_encoder()
    return train_ramps(tiny.program, tiny.model, data, ALL)


def test_a_ramp_for_every_site_agrees_better_with_depth(trained):
    agreement = [ramp.agreement for ramp in trained.ramps]
    assert [ramp.site for ramp in trained.ramps] == [0, 1, 2, 3]
    assert [ramp.kind for ramp in trained.ramps] == ["masked_mean"] * 3 + ["identity"]
    assert agreement[-1] >= 0.9 and agreement[-1] > agreement[0] + 0.05
    labels = trained.validation.labels
    assert agreement[0] > max(np.mean(labels == 0), np.mean(labels == 1)), "worse than a constant"


def test_validation_is_what_the_served_ramps_say(trained, data):
    tiny, validation = tiny_encoder(), trained.validation
    rows = validation.rows
    assert trained.samples == 480 and len(rows) == 120 and len(set(rows)) == 120
    inputs = [x[rows] for x in data.inputs]
    sites = [ramp.site for ramp in trained.ramps]
    values, logits = jax.jit(tiny.program.rebatch(len(rows)).taps(sites))(*inputs)
    np.testing.assert_array_equal(validation.labels, np.asarray(logits).argmax(1))
    for r, (ramp, value) in enumerate(zip(trained.ramps, values, strict=True)):
        scores = head_logits(ramp.params, pool(ramp.kind, value, jnp.asarray(inputs[1])))
        np.testing.assert_allclose(validation.errors[:, r], answer_error(scores), atol=1e-4)
        assert np.mean(np.asarray(scores).argmax(1) == validation.predictions[:, r]) >= 0.99
        assert ramp.agreement == pytest.approx(validation.agrees[:, r].mean())
        assert ramp.name == tiny.program.sites[ramp.site].name
        assert ramp.num_bytes == 4 * 2 * (64 + 1)


def test_calibrated_errors_are_honest(trained):
    """Over the held-out samples, the mean error is close to the share of wrong answers."""
    wrong = 1.0 - trained.validation.agrees.mean(axis=0)
    np.testing.assert_allclose(trained.validation.errors.mean(axis=0), wrong, atol=0.06)


def test_losses_fall(trained):
    assert trained.losses.shape[1:] == (2, 4)
    assert (trained.losses[:, 1].min(axis=0) < 0.9 * trained.losses[0, 1]).all()


def test_the_same_seed_gives_the_same_ramps(trained, data):
    tiny = tiny_encoder()
    again = train_ramps(tiny.program, tiny.model, data, ALL)
    for first, second in zip(trained.ramps, again.ramps, strict=True):
        np.testing.assert_array_equal(first.params["kernel"], second.params["kernel"])
        np.testing.assert_array_equal(first.params["bias"], second.params["bias"])
    np.testing.assert_array_equal(trained.validation.errors, again.validation.errors)


def test_features_on_disk_give_the_same_ramps(trained, data, tmp_path):
    tiny = tiny_encoder()
    again = train_ramps(tiny.program, tiny.model, data, replace(ALL, cache_dir=str(tmp_path)))
    for first, second in zip(trained.ramps, again.ramps, strict=True):
        np.testing.assert_array_equal(first.params["kernel"], second.params["kernel"])
    np.testing.assert_array_equal(trained.validation.errors, again.validation.errors)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_no_features_on_disk(tmp_path):
    program, model = constant_model([0.0, 1.0])
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    seen = []
    config = replace(ALL, cache_dir=str(tmp_path))

    def progress(done, total, what):
        seen.append(len(list(tmp_path.rglob("*.f32"))))

    with pytest.raises(RampError, match="class 1 for all"):
        train_ramps(program, model, ArrayDataset("x", (x,)), config, progress)
    assert set(seen) == {1} and list(tmp_path.iterdir()) == []


def test_training_after_the_pass_needs_neither_weights_nor_data():
    def ready():
        rng = np.random.default_rng(0)
        params = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 8), (8, 8), (8, 3))]

        def fn(params, x):
            return jnp.tanh(jnp.tanh(x @ params[0]) @ params[1]) @ params[2]

        x = rng.normal(size=(80, 4)).astype(np.float32)
        model = Model("freed", fn, params, (InputSpec("x", (4,), "float32"),))
        program = trace(fn, params, x[:2])
        run = training_features(program, model, ArrayDataset("x", (x,)), ALL)
        return run, program.sites, [weakref.ref(array) for array in (*params, x)]

    run, sites, held = ready()
    assert all(ref() is not None for ref in held), "the pass has yet to run"
    with run as features:
        gc.collect()
        assert [ref() for ref in held] == [None] * 4
        assert len(fit_ramps(features, sites, ALL).ramps) == 2


def test_only_the_first_part_of_the_data_is_used(data):
    tiny, seen = tiny_encoder(), []
    config = TrainConfig(data_frac=0.2, max_epochs=2, split="last", validation_frac=0.25)
    trained = train_ramps(tiny.program, tiny.model, data, config, lambda *step: seen.append(step))
    assert trained.samples == 90
    assert trained.validation.rows.tolist() == list(range(90, 120))
    assert (120, 120, "running the original model") in seen
    assert seen[-1] == (2, 2, "training ramps")


def test_hard_targets_and_a_kind_of_choice(data):
    tiny = tiny_encoder()
    config = replace(ALL, soft_targets=False, kind="first_token", max_epochs=3)
    trained = train_ramps(tiny.program, tiny.model, data, config)
    assert [ramp.site for ramp in trained.ramps] == [0, 1, 2]
    assert {ramp.kind for ramp in trained.ramps} == {"first_token"}


def test_ramps_of_an_image_model():
    rng = np.random.default_rng(0)
    params = [rng.normal(size=s).astype(np.float32) for s in ((3, 6), (6, 8), (8, 5))]

    def fn(params, x):
        x = jax.nn.relu(x @ params[0])
        x = jax.nn.relu(x @ params[1])
        return x.mean((1, 2)) @ params[2]

    images = (rng.normal(size=(80, 4, 4, 3)) + rng.normal(size=(80, 1, 1, 3))).astype(np.float32)
    model = Model("image", fn, params, (InputSpec("x", (4, 4, 3), "float32"),))
    program = trace(fn, params, images[:2])
    trained = train_ramps(
        program, model, ArrayDataset("images", (images,)), replace(ALL, max_epochs=3)
    )
    assert [ramp.kind for ramp in trained.ramps] == ["spatial_mean", "identity"]
    assert [ramp.params["kernel"].shape for ramp in trained.ramps] == [(6, 5), (8, 5)]


def test_too_few_samples():
    tiny = tiny_encoder()
    with pytest.raises(RampError, match="10% of 300 samples are 30, expected at least 50"):
        train_ramps(tiny.program, tiny.model, ArrayDataset("sentences", sentences(300)))
    one = ArrayDataset("ids alone", sentences(300)[:1])
    with pytest.raises(DataError, match="1 arrays for a model of 2 inputs"):
        train_ramps(tiny.program, tiny.model, one, ALL)
    with pytest.raises(RampError, match="0 samples"):
        train_ramps(tiny.program, tiny.model, ArrayDataset("nothing", ()), ALL)


def constant_model(bias):
    params = {"a": np.ones((4, 8), np.float32), "b": np.zeros((8, 2), np.float32)}

    def fn(params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"] + jnp.asarray(bias)

    model = Model("constant", fn, params, (InputSpec("x", (4,), "float32"),))
    return trace(fn, params, np.ones((2, 4), np.float32)), model


def test_an_original_model_with_one_answer_only():
    program, model = constant_model([0.0, 1.0])
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    with pytest.raises(RampError, match="class 1 for all 60 samples"):
        train_ramps(program, model, ArrayDataset("x", (x,)), ALL)


def test_an_original_model_whose_logits_are_not_finite():
    program, model = constant_model([0.0, np.nan])
    with pytest.raises(NumericsError, match=r"60 of 60 samples \(rows \[0, 1"):
        train_ramps(program, model, ArrayDataset("x", (np.ones((60, 4), np.float32),)), ALL)


def test_no_site_that_a_kind_fits():
    tiny = tiny_encoder()
    with pytest.raises(RampError, match="'spatial_mean', shapes"):
        head_kinds(tiny.program.sites, tiny.model, "spatial_mean")
