"""Image families from files: Hugging Face directories and state dicts, good and bad ones."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models import from_hf, load_model
from apparate_jax.models.families import FAMILIES
from apparate_jax.models.state_dict import from_state_dict
from tests.models import torch_files
from tests.models.tiny_vision import (
    CLASSES,
    SETTINGS,
    family_and_config,
    logits,
    make,
    published,
    shuffled,
)

HF = ("resnet-basic", "resnet-bottleneck", "vit")
PREPROCESSOR = {"crop_pct": 0.5, "size": 32, "resample": 3}


def _hf_name(name):
    """A ResNet's tensor as Hugging Face names it."""
    part, _, rest = name.partition(".")
    if part in ("conv1", "bn1"):
        return f"resnet.embedder.embedder.{_KINDS[part[:-1]]}.{rest}"
    if part == "fc":
        return f"classifier.1.{rest}"
    block, layer, tail = rest.split(".", 2)
    start = f"resnet.encoder.stages.{int(part[-1]) - 1}.layers.{block}"
    if layer == "downsample":
        which, kind = tail.split(".")
        return f"{start}.shortcut.{('convolution', 'normalization')[int(which)]}.{kind}"
    return f"{start}.layer.{int(layer[-1]) - 1}.{_KINDS[layer[:-1]]}.{tail}"


_KINDS = {"conv": "convolution", "bn": "normalization"}


def _write_directory(root, name, **settings):
    family, config = family_and_config(name)
    model = make(name)
    arrays = published(family, config, model)
    if family.kind == "resnet":
        arrays = {_hf_name(n): a for n, a in arrays.items()}
        for n in [n for n in arrays if n.endswith("running_mean")]:
            arrays[n.replace("running_mean", "num_batches_tracked")] = np.asarray(3)
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, root / "model.safetensors")
    fields = {k: v for k, v in SETTINGS[name][1].items() if k not in ("small_stem",)}
    labels = {str(i): f"kind {i}" for i in range(CLASSES)}
    raw = {"model_type": family.kind, **fields, "id2label": labels, **settings}
    (root / "config.json").write_text(json.dumps(raw))
    return model


@pytest.mark.parametrize("name", HF)
def test_directories_round_trip(tmp_path, name):
    expected = _write_directory(tmp_path, name)
    changes = {"small_stem": True} if name == "resnet-bottleneck" else {}
    size = expected.image.height
    model = from_hf(tmp_path, image_size=size, **changes)
    np.testing.assert_array_equal(logits(model), logits(expected))
    assert model.labels == tuple(f"kind {i}" for i in range(CLASSES))
    assert model.image == expected.image


def test_the_preprocessor_sets_the_size_of_a_resnet(tmp_path):
    _write_directory(tmp_path, "resnet-basic")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    model = from_hf(tmp_path)
    assert model.inputs[0].shape == (32, 32, 3)
    assert (model.image.height, model.image.resize) == (32, 64)
    assert model.image.interpolation == "bicubic"
    other = from_hf(tmp_path, image_size=48)
    assert (other.inputs[0].shape, other.image.resize) == ((48, 48, 3), 96)


def test_newer_names_of_a_vit_are_known(tmp_path):
    expected = _write_directory(tmp_path, "vit")
    family, config = family_and_config("vit")
    renamed = {}
    for name, array in published(family, config, expected).items():
        for new, old in {
            "vit.layers.": "vit.encoder.layer.",
            ".attention.q_proj.": ".attention.attention.query.",
            ".attention.k_proj.": ".attention.attention.key.",
            ".attention.v_proj.": ".attention.attention.value.",
            ".attention.o_proj.": ".attention.output.dense.",
            ".mlp.fc1.": ".intermediate.dense.",
        }.items():
            name = name.replace(old, new)
        if ".attention." not in name and name.startswith("vit.layers."):
            name = name.replace(".output.dense.", ".mlp.fc2.")
        renamed[name] = np.ascontiguousarray(array)
    save_file(renamed, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(logits(from_hf(tmp_path)), logits(expected))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage"),
        ({"depths": [2, 2]}, r"missing layer2\.1\.conv1\.weight \[16, 16, 3, 3\]"),
        ({"hidden_sizes": [8, 12]}, r"layer2\.0\.conv1\.weight is \[16, 8, 3, 3\], expected \[12"),
    ],
)
def test_directories_that_do_not_fit_say_what_differs(tmp_path, settings, message):
    _write_directory(tmp_path, "resnet-basic", **settings)
    with pytest.raises(ModelError, match=message):
        from_hf(tmp_path)


def _zoo(name, **changes):
    family = next(f for f in FAMILIES.values() if name in f.zoo)
    config = family.configure({**family.zoo[name], **changes})
    model = family.make(config, 0)
    return family, config, shuffled(model) if name == "resnet-18-cifar" else model


@pytest.mark.parametrize("form", torch_files.FORMATS)
def test_the_architecture_of_a_state_dict_is_found(tmp_path, form):
    family, config, model = _zoo("resnet-18-cifar", num_labels=7)
    arrays = published(family, config, model)
    path = tmp_path / "weights.pth"
    path.write_bytes(torch_files.state_dict({f"module.{n}": a for n, a in arrays.items()}, form))
    found = load_model(str(path))
    assert found.name == "weights"
    assert found.source["config"]["small_stem"] is True
    assert found.image == model.image
    np.testing.assert_array_equal(logits(found), logits(model))
    assert not found.source.get("random_weights")


@pytest.mark.parametrize("name", ["resnet-18", "efficientnet-lite0", "vit-small"])
def test_every_family_is_told_apart(tmp_path, name):
    family, config, model = _zoo(name, num_labels=3)
    arrays = {n: a.astype(np.float16) for n, a in published(family, config, model).items()}
    path = tmp_path / f"{name}.safetensors"
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, path)
    found = load_model(str(path), dtype="bfloat16")
    assert found.source["kind"] == family.kind
    assert found.source["config"]["num_labels"] == 3
    assert found.source["config"]["dtype"] == "bfloat16"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A state dict of zeros for a ResNet-18 of five classes, and a way to change it."""
    family, config, model = _zoo("resnet-18", num_labels=5)
    shapes = family.stored_shapes(config, model)
    root = tmp_path_factory.mktemp("weights")

    def write(change=dict):
        arrays = {n: np.zeros(shape, np.int8) for n, shape in shapes.items()}
        path = root / "resnet.safetensors"
        save_file(change(arrays), path)
        return path

    return write


def test_state_dicts_that_fit_nothing_name_the_closest(weights):
    path = weights(lambda arrays: {**arrays, "fc.weight": np.zeros((5, 500), np.int8)})
    with pytest.raises(WeightsError, match="closest is 'resnet-18'") as caught:
        from_state_dict(path)
    assert "fc.weight is [5, 500], expected [5, 512]" in str(caught.value)
    path = weights(lambda arrays: {n: a for n, a in arrays.items() if n != "bn1.weight"})
    with pytest.raises(WeightsError, match=r"'resnet-18': .*missing bn1\.weight \[64\]"):
        from_state_dict(path)
    path = weights(lambda arrays: {**arrays, "extra.weight": np.zeros(3, np.int8)})
    with pytest.raises(WeightsError, match=r"unexpected extra\.weight \[3\]"):
        from_state_dict(path)


def test_a_backbone_without_classifier_says_so(weights):
    path = weights(lambda arrays: {n: a for n, a in arrays.items() if not n.startswith("fc.")})
    with pytest.raises(WeightsError, match=r"missing fc\.weight"):
        from_state_dict(path)


def test_a_named_architecture_is_the_only_one_tried(weights):
    path = weights()
    assert from_state_dict(path, architecture="resnet-18").source["config"]["num_labels"] == 5
    with pytest.raises(WeightsError, match=r"missing layer1\.2\.conv1\.weight") as caught:
        from_state_dict(path, architecture="resnet-34")
    assert "closest" not in str(caught.value)
    with pytest.raises(ModelError, match="did you mean 'resnet-18'"):
        from_state_dict(path, architecture="resnet18")


def test_the_number_of_classes_is_that_of_the_weights(weights):
    path = weights()
    assert from_state_dict(path, classes=5).source["config"]["num_labels"] == 5
    with pytest.raises(ModelError, match="6 labels were asked for"):
        from_state_dict(path, classes=6)


def test_unknown_settings_are_named(weights):
    with pytest.raises(ModelError, match="'patches'"):
        from_state_dict(weights(), patches=3)
