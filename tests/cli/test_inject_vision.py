"""``apparate inject`` of image models: by name, and from state dicts."""

import numpy as np
import pytest

from apparate_jax.checkpoint import load_checkpoint
from apparate_jax.models import from_zoo
from apparate_jax.models.families import FAMILIES
from tests.models import torch_files
from tests.models.tiny_vision import published


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A state dict as PyTorch writes it, and the model that it is of."""
    family = FAMILIES["resnet"]
    model = from_zoo("resnet-18-cifar", classes=3)
    config = family.configure(model.source["config"])
    path = tmp_path_factory.mktemp("weights") / "pictures.pth"
    path.write_bytes(torch_files.state_dict(published(family, config, model)))
    return path, model


def test_random_weights_are_warned_of(apparate, tmp_path):
    done = apparate("inject", "resnet-18-cifar", "--classes", 3, "-o", tmp_path / "c")
    assert done.status == 0
    assert "WARNING: resnet-18-cifar has random weights" in done.err
    assert "stage_3/block_0" in done.out


def test_a_state_dict(apparate, tmp_path, weights):
    path, model = weights
    done = apparate("inject", path, "-o", tmp_path / "c", "--json", "-")
    assert done.status == 0
    assert "random" not in done.err
    assert done.json["model"] == "pictures"
    saved = load_checkpoint(tmp_path / "c").model
    assert saved.image == model.image
    for name, value in model.params.items():
        np.testing.assert_array_equal(saved.params[name], value)


def test_image_size_and_architecture(apparate, tmp_path, weights):
    path, _ = weights
    options = ("--image-size", 48, "--architecture", "resnet-18-cifar")
    done = apparate("inject", path, *options, "-o", tmp_path / "c", "--json", "-")
    assert done.json["sites"][0]["shape"][1:3] == [48, 48]
    done = apparate("inject", path, "--architecture", "resnet-34", "-o", tmp_path / "d")
    assert done.status == 1
    assert "missing layer1.2.conv1.weight" in done.error
    assert not (tmp_path / "d").exists()


def test_a_pickle_that_runs_something_is_refused(apparate, tmp_path):
    owned = tmp_path / "owned"
    call = torch_files.call(torch_files.name("os", "system"), torch_files.text(f"touch {owned}"))
    path = tmp_path / "evil.pth"
    path.write_bytes(torch_files.pack(torch_files.ordered({"weight": call}), {}, torch_files.OLD))
    done = apparate("inject", path, "-o", tmp_path / "c")
    assert done.status == 1
    assert "os.system" in done.error
    assert not owned.exists()
