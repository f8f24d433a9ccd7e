"""CIFAR-10 training: augmentation, and what each architecture begins with."""

import numpy as np
import pytest


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


def test_a_resnet_begins_with_random_weights_that_all_learn(cifar, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train_cifar.py", "--small-stem", *files_of_this_test()])
    args = cifar.parse()
    start = cifar.begin(args)
    assert start.config.small_stem and start.config.image_size == 32
    assert start.config.num_labels == 10 and not start.frozen
    model = start.trained(start.params, name="mine", labels=cifar.LABELS)
    assert model.name == "mine" and model.params is start.params
    assert model.source["config"]["num_labels"] == 10


def test_an_architecture_that_is_not_known_is_refused(cifar, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train_cifar.py", "--architecture", "vgg-12"])
    with pytest.raises(SystemExit):
        cifar.parse()
    assert "vgg-16" in capsys.readouterr().err


def files_of_this_test():
    """Options with files that are there; nothing reads them."""
    return ["--train", __file__, "--test", __file__]
