"""The parts of CIFAR-10 training: augmentation, convolutions as products, schedule, one step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.models.resnet import RESNET


@pytest.fixture
def cifar(example):
    return example("train_cifar")


def test_augmented_pictures_are_moved_or_mirrored_parts(cifar):
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    found = cifar.augment(images, np.random.default_rng(1))
    assert found.shape == images.shape and found.dtype == np.uint8
    for image, changed in zip(images, found, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        parts = [padded[i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
        assert any(np.array_equal(changed, p) or np.array_equal(changed, p[:, ::-1]) for p in parts)
    same = [np.array_equal(a, b) for a, b in zip(images, found, strict=True)]
    assert sum(same) < 8


@pytest.mark.parametrize(("size", "kernel", "stride"), [(9, 7, 2), (8, 3, 1), (2, 3, 2), (1, 3, 1)])
def test_a_convolution_as_a_product_is_the_convolution(cifar, size, kernel, stride):
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
        return cifar.as_products(image, weights, (stride, stride), [edge, edge])

    np.testing.assert_allclose(found(image, weights), expected(image, weights), atol=1e-4)
    grads = [
        jax.grad(lambda *a, fn=fn: (fn(*a) ** 2).sum(), (0, 1))(image, weights)
        for fn in (found, expected)
    ]
    for ours, theirs in zip(*grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_rate_rises_and_falls_to_zero(cifar):
    rates = [cifar.rate_factor(used) for used in np.linspace(0, 1, 101)]
    assert rates[0] == 0.0 and rates[-1] == pytest.approx(0.0)
    assert np.argmax(rates) == 10 and max(rates) == pytest.approx(1.0)
    assert cifar.rate_factor(1.3) == pytest.approx(0.0)


def test_a_budget_ends_by_what_runs_out_first(cifar):
    budget = cifar.Budget(steps=100, seconds=60.0)
    assert budget.used(50, 10.0) == 0.5
    assert budget.used(10, 60.0) == 1.0
    assert cifar.Budget(100, float("inf")).used(100, 1e6) == 1.0


def test_every_epoch_is_another_order_of_whole_batches(cifar):
    rows = cifar.batches(10, 3, np.random.default_rng(0))
    epochs = [np.concatenate([next(rows) for _ in range(3)]) for _ in range(2)]
    assert all(len(set(epoch.tolist())) == 9 for epoch in epochs)
    assert not np.array_equal(*epochs)


def test_a_step_learns_and_the_model_answers_with_what_was_learnt(cifar):
    sizes = {"layer_type": "basic", "depths": [1, 1], "hidden_sizes": [8, 16]}
    config = RESNET.configure(
        {**sizes, "embedding_size": 8, "image_size": 16, "num_labels": 3, "small_stem": True}
    )
    network = cifar.make_network(config, 0)
    model = RESNET.make(config)
    values = cifar.values_of(network.params, network.stats)
    assert {k: v.shape for k, v in values.items()} == {k: v.shape for k, v in model.params.items()}
    step = cifar.make_step(network.graph, model.image, 0.0, "float32")
    params, stats = network.params, network.stats
    memory = cifar.optimiser(0.0).init(params)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 16, 16, 3), np.uint8)
    labels = np.arange(24) % 3
    pixels[..., 0] = 100 * labels[:, None, None]
    losses = []
    for _ in range(20):
        params, stats, memory, loss = step(params, stats, memory, 0.05, pixels, labels)
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]
    learnt = cifar.values_of(params, stats)
    moved = [k for k, v in values.items() if k.endswith("/mean") and np.any(learnt[k] != 0)]
    assert len(moved) == sum(k.endswith("/mean") for k in values)
    image = (jnp.asarray(pixels) - jnp.asarray(model.image.mean)) / jnp.asarray(model.image.std)
    answers = np.asarray(model.apply(learnt, image)).argmax(axis=1)
    assert (answers == labels).mean() > 0.8
