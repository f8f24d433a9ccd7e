import json

import pytest

from apparate_jax.core import ImagePreprocess
from apparate_jax.errors import ModelError
from apparate_jax.models.hf import read_json
from apparate_jax.models.preprocess import from_config, read, resized

HALF = (127.5,) * 3
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CASES = {
    "vit, older": (
        {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224},
        ImagePreprocess(224, 224, None, HALF, HALF),
    ),
    "vit": (
        {
            "image_processor_type": "ViTImageProcessor",
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "resample": 2,
            "rescale_factor": 1 / 255,
            "size": {"height": 384, "width": 384},
        },
        ImagePreprocess(384, 384, None, HALF, HALF),
    ),
    "resnet": (
        {
            "crop_pct": 0.875,
            "feature_extractor_type": "ConvNextFeatureExtractor",
            "resample": 3,
            "size": 224,
            **IMAGENET,
        },
        ImagePreprocess(224, 224, 256, interpolation="bicubic"),
    ),
    "resnet, newer": (
        {
            "image_processor_type": "ConvNextImageProcessor",
            "resample": 3,
            "size": {"shortest_edge": 224},
            **IMAGENET,
        },
        ImagePreprocess(224, 224, 256, interpolation="bicubic"),
    ),
    "large convnext": (
        {"crop_pct": 1.0, "resample": 3, "size": {"shortest_edge": 384}, **IMAGENET},
        ImagePreprocess(384, 384, interpolation="bicubic"),
    ),
    "center crop": (
        {
            "do_center_crop": True,
            "crop_size": {"height": 224, "width": 224},
            "size": {"shortest_edge": 256},
            **IMAGENET,
        },
        ImagePreprocess(224, 224, 256),
    ),
    "plain numbers": (
        {"do_rescale": False, "image_mean": 127, "image_std": 128, "size": 64},
        ImagePreprocess(64, 64, None, (127.0,) * 3, (128.0,) * 3),
    ),
    "not normalised": (
        {"do_normalize": False, "size": 64},
        ImagePreprocess(64, 64, None, (0.0,) * 3, (255.0,) * 3),
    ),
}


def _rounded(image):
    return tuple(round(value, 6) for value in (*image.mean, *image.std))


@pytest.mark.parametrize("case", CASES)
def test_published_files(case):
    raw, expected = CASES[case]
    found = from_config(raw)
    assert _rounded(found) == _rounded(expected)
    same = (found.height, found.width, found.resize, found.channels, found.interpolation)
    assert same == (
        expected.height,
        expected.width,
        expected.resize,
        expected.channels,
        expected.interpolation,
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"resample": 1}, "resample is 1"),
        ({"size": {"longest_edge": 224}}, "longest_edge"),
        ({"size": "224"}, "'224'"),
        ({"image_mean": [0.5]}, "1 values"),
    ],
)
def test_what_is_not_known_is_named(raw, message):
    with pytest.raises(ModelError, match=message):
        from_config(raw)


def test_other_sizes_keep_the_proportions():
    assert resized(ImagePreprocess(224, 224, 256), 448).resize == 512
    assert resized(ImagePreprocess(224, 224), 96) == ImagePreprocess(96, 96)
    assert resized(ImagePreprocess(224, 224, 256), 224) == ImagePreprocess(224, 224, 256)


def test_a_directory_may_not_say(tmp_path):
    assert read(tmp_path, read_json) is None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 48}))
    assert read(tmp_path, read_json).height == 48
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="no JSON"):
        read(tmp_path, read_json)
