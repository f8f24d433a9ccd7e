"""Image families in a size for tests, with parameters at random, batch statistics included."""

from dataclasses import replace

import jax
import numpy as np

from apparate_jax.models.families import FAMILIES

CLASSES = 5
SETTINGS = {
    "resnet-basic": (
        "resnet",
        {
            "layer_type": "basic",
            "depths": (2, 1),
            "hidden_sizes": (8, 16),
            "embedding_size": 8,
            "image_size": 32,
        },
    ),
    "resnet-bottleneck": (
        "resnet",
        {
            "depths": (1, 2),
            "hidden_sizes": (16, 32),
            "embedding_size": 8,
            "small_stem": True,
            "image_size": 16,
        },
    ),
    "vgg": ("vgg", {"depths": (1, 2), "widths": (8, 16), "classifier_width": 32, "image_size": 16}),
    "vgg-bn": (
        "vgg",
        {
            "depths": (1, 2),
            "widths": (8, 16),
            "classifier_width": 32,
            "grid": 3,
            "image_size": 12,
            "batch_norm": True,
        },
    ),
    "efficientnet": (
        "efficientnet",
        {
            "depths": (1, 2),
            "widths": (8, 12),
            "kernels": (3, 5),
            "strides": (1, 2),
            "stem_width": 8,
            "head_width": 24,
            "image_size": 32,
        },
    ),
    "vit": (
        "vit",
        {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "patch_size": 8,
            "image_size": 32,
        },
    ),
}
NAMES = tuple(SETTINGS)


def family_and_config(name, **changes):
    kind, settings = SETTINGS[name]
    family = FAMILIES[kind]
    return family, family.configure({"num_labels": CLASSES, **settings, **changes})


def shuffled(model, seed=1):
    """The model with other parameters, batch statistics too; variances are positive."""
    rng = np.random.default_rng(seed)

    def draw(path, like):
        values = rng.normal(0, 0.3, like.shape)
        if path.endswith(("scale", "var")):
            values = np.abs(values) + 0.5
        return jax.numpy.asarray(values, like.dtype)

    return replace(model, params={path: draw(path, like) for path, like in model.params.items()})


def make(name, **changes):
    family, config = family_and_config(name, **changes)
    return shuffled(family.make(config, 0))


def published(family, config, model):
    """The parameters under their published names and in their published layout."""
    shapes = family.stored_shapes(config, model)
    arrays = {}
    for path, place in family.tensors(config).items():
        value = np.asarray(model.params[path])
        order = {"same": None, "dense": (1, 0), "conv": (3, 2, 0, 1)}[place.layout]
        arrays[place.name] = value.transpose(order) if order else value
        assert arrays[place.name].shape == shapes[place.name]
    return arrays


def logits(model, batch=3):
    return np.asarray(jax.jit(model.apply)(model.params, *model.example_inputs(batch)))
