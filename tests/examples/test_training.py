"""The training loop of the examples: convolutions as products, schedule, steps, what is frozen."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from apparate_jax.data.image import ImageEncoder
from apparate_jax.models.resnet import RESNET, ResNet


@pytest.fixture
def training(example):
    return example("training")


@pytest.mark.parametrize(("size", "kernel", "stride"), [(9, 7, 2), (8, 3, 1), (2, 3, 2), (1, 3, 1)])
def test_a_convolution_as_a_product_is_the_convolution(training, size, kernel, stride):
    keys = jax.random.split(jax.random.key(0))
    image = jax.random.normal(keys[0], (2, size, size, 5))
    weights = jax.random.normal(keys[1], (kernel, kernel, 5, 7))
    edge = (kernel // 2, kernel // 2)

    def expected(image, weights):
        return jax.lax.conv_general_dilated(
            image,
            weights,
            (stride, stride),
            [edge, edge],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def found(image, weights):
        return training.as_products(image, weights, (stride, stride), [edge, edge])

    np.testing.assert_allclose(found(image, weights), expected(image, weights), atol=1e-4)
    grads = [
        jax.grad(lambda *a, fn=fn: (fn(*a) ** 2).sum(), (0, 1))(image, weights)
        for fn in (found, expected)
    ]
    for ours, theirs in zip(*grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_rate_rises_and_falls_to_zero(training):
    rates = [training.rate_factor(used) for used in np.linspace(0, 1, 101)]
    assert rates[0] == 0.0 and rates[-1] == pytest.approx(0.0)
    assert np.argmax(rates) == 10 and max(rates) == pytest.approx(1.0)
    assert training.rate_factor(1.3) == pytest.approx(0.0)


def test_a_budget_ends_by_what_runs_out_first(training):
    budget = training.Budget(steps=100, seconds=60.0)
    assert budget.used(50, 10.0) == 0.5
    assert budget.used(10, 60.0) == 1.0
    assert training.Budget(100, float("inf")).used(100, 1e6) == 1.0


def test_every_epoch_is_another_order_of_whole_batches(training):
    rows = training.batches(10, 3, np.random.default_rng(0))
    epochs = [np.concatenate([next(rows) for _ in range(3)]) for _ in range(2)]
    assert all(len(set(epoch.tolist())) == 9 for epoch in epochs)
    assert not np.array_equal(*epochs)


def small_resnet():
    sizes = {"layer_type": "basic", "depths": [1, 1], "hidden_sizes": [8, 16]}
    config = RESNET.configure(
        {**sizes, "embedding_size": 8, "image_size": 16, "num_labels": 3, "small_stem": True}
    )
    return RESNET.make(config, 0), lambda: ResNet(config, nnx.Rngs(0))


def coloured(count=24):
    """Pictures whose red says the class, and the classes."""
    labels = np.arange(count) % 3
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    pixels[..., 0] = 100 * labels[:, None, None]
    return pixels, labels


def test_a_step_learns_and_the_model_answers_with_what_was_learnt(training):
    model, make = small_resnet()
    network = training.take_apart(make, model.params)
    values = training.values_of(network.params, network.rest)
    assert {k: v.shape for k, v in values.items()} == {k: v.shape for k, v in model.params.items()}
    optimiser = training.momentum(0.0)
    step = training.make_step(network, model.image, optimiser, "float32")
    params, rest, memory = network.params, network.rest, optimiser.init(network.params)
    pixels, labels = coloured()
    losses = []
    for _ in range(20):
        params, rest, memory, loss = step(params, rest, memory, 0.05, pixels, labels)
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]
    learnt = training.values_of(params, rest)
    moved = [k for k, v in learnt.items() if k.endswith("/mean") and np.any(v != 0)]
    assert len(moved) == sum(k.endswith("/mean") for k in learnt)
    image = training.model_input(jnp.asarray(pixels), model.image)
    answers = np.asarray(model.apply(learnt, image)).argmax(axis=1)
    assert (answers == labels).mean() > 0.8


def test_frozen_parameters_stay_and_the_others_move(training):
    model, make = small_resnet()
    network = training.take_apart(make, model.params, lambda path: path.startswith("blocks/0/"))
    pixels, labels = coloured()
    budget = training.Budget(steps=3, seconds=float("inf"))
    recipe = training.Recipe(training.adam(), 0.01, 8, budget)
    learnt, steps = training.train(
        network, model.image, lambda rows, rng: pixels[rows], labels, recipe
    )
    assert steps == 3 and set(learnt) == set(model.params)
    kernels = [k for k in model.params if k.endswith("/kernel")]
    same = {k for k in kernels if np.array_equal(learnt[k], model.params[k])}
    assert same == {k for k in kernels if k.startswith("blocks/0/")} != set()


def test_pictures_become_what_the_models_encoder_makes_of_them(training):
    model, _ = small_resnet()
    caffe = replace(model.image, channels="bgr", mean=(103.939, 116.779, 123.68), std=(1.0,) * 3)
    for image in (model.image, caffe):
        encoder = ImageEncoder(replace(model, image=image))
        pixels, _ = coloured(4)
        expected = np.stack([encoder.encode(picture) for picture in pixels])
        np.testing.assert_allclose(training.model_input(pixels, image), expected, atol=1e-4)
