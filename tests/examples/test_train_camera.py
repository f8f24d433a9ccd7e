"""The head of the camera model: what is fitted, and that it is the model's last layer then."""

import sys

import numpy as np
import pytest

from apparate_jax.models.efficientnet import EFFICIENTNET


@pytest.fixture
def camera(example):
    return example("train_camera")


def samples(count=200, width=12):
    rng = np.random.default_rng(0)
    states = rng.random(count) < 0.4
    features = rng.normal(5.0, 2.0, (count, width)).astype(np.float32)
    features[:, 3] += 8.0 * states
    return features, states


def test_the_head_separates_what_can_be_separated(camera):
    features, states = samples()
    head = camera.fit_head(features[:100], states[:100], decay=1e-3)
    assert head.kernel.shape == (12, 2)
    assert camera.right_frac(head, features[100:], states[100:]) > 0.9
    assert camera.right_frac(head, features[100:], ~states[100:]) < 0.1


def test_decay_makes_the_head_smaller(camera):
    features, states = samples()
    weak, strong = (camera.fit_head(features, states, decay=d) for d in (1e-4, 1e-1))
    assert np.linalg.norm(strong.kernel) < np.linalg.norm(weak.kernel)


def test_a_model_with_another_head_can_be_made_again(camera):
    sizes = {"depths": [1], "widths": [8], "kernels": [3], "strides": [1], "head_width": 12}
    config = EFFICIENTNET.configure({**sizes, "image_size": 16, "num_labels": 5})
    backbone = EFFICIENTNET.make(config, 0)
    features, states = samples()
    head = camera.fit_head(features, states, decay=1e-3)
    model = camera.with_head(backbone, head)
    assert model.source["config"]["num_labels"] == 2
    same = camera.Head(np.eye(12, dtype=np.float32), np.zeros(12, np.float32))
    pooled = camera.with_head(backbone, same)
    (image,) = model.example_inputs(2)
    seen = np.asarray(pooled.apply(pooled.params, image))
    logits = np.asarray(model.apply(model.params, image))
    np.testing.assert_allclose(logits, seen @ head.kernel + head.bias, rtol=1e-4, atol=1e-4)


def test_a_video_that_is_not_there_is_named(camera, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_camera.py", "nowhere.mp4"])
    with pytest.raises(SystemExit):
        camera.parse()
    assert "nowhere.mp4" in capsys.readouterr().err
