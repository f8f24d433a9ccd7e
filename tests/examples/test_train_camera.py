"""The camera's models: what is fitted or trained, and the stream that is kept for all of them."""

import json
import sys

import av
import numpy as np
import pytest

from apparate_jax.data.image import ImageEncoder, resize_and_crop
from apparate_jax.models.efficientnet import EFFICIENTNET
from apparate_jax.models.resnet import RESNET

SIZES = {"depths": [1], "widths": [8], "kernels": [3], "strides": [1], "head_width": 12}


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
    answers = (features[100:] @ head.kernel + head.bias).argmax(axis=1) == 1
    assert (answers == states[100:]).mean() > 0.9


def test_decay_makes_the_head_smaller(camera):
    features, states = samples()
    weak, strong = (camera.fit_head(features, states, decay=d) for d in (1e-4, 1e-1))
    assert np.linalg.norm(strong.kernel) < np.linalg.norm(weak.kernel)


def test_a_model_with_another_head_can_be_made_again(camera):
    config = EFFICIENTNET.configure({**SIZES, "image_size": 16, "num_labels": 5})
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


@pytest.fixture
def clip(tmp_path):
    """20 grey frames that become brighter, 10 a second."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for i in range(20):
            pixels = np.full((48, 64, 3), 20 + 6 * i, np.uint8)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        target.mux(stream.encode())
    return path


def options(camera, monkeypatch, clip, *more):
    out = ["--out", str(clip.parent / "out"), "--stream", str(clip.parent / "stream.mp4")]
    monkeypatch.setattr(sys, "argv", ["train_camera.py", str(clip), *out, *more])
    return camera.parse()


def test_a_stream_is_as_long_as_asked_and_kept_while_its_settings_are_the_same(
    camera, clip, monkeypatch
):
    more = ["--stream-minutes", "0.05", "--stream-height", "24"]
    args = options(camera, monkeypatch, clip, *more)
    made = camera.stream_of(args, 12, 20)
    assert (made["loops"], made["frames"]) == (4, 32)  # 3 s at 10 fps are 30 frames
    with av.open(str(args.stream)) as source:
        assert sum(1 for _ in source.decode(video=0)) == 32
    assert json.loads(args.stream.with_suffix(".json").read_text()) == made
    args.stream.write_bytes(b"not written again")
    assert camera.stream_of(args, 12, 20) == made
    assert args.stream.read_bytes() == b"not written again"
    assert camera.stream_of(args, 10, 20)["from_frame"] == 10
    assert args.stream.read_bytes() != b"not written again"


def test_ramps_see_the_part_that_was_learnt_from_beside_the_stream(camera, clip, monkeypatch):
    args = options(camera, monkeypatch, clip)
    made = camera.ramps_of(args, 12)
    path = args.stream.with_name("stream-ramps.mp4")
    with av.open(str(path)) as source:
        assert sum(1 for _ in source.decode(video=0)) == made["to_frame"] == 12
    path.write_bytes(b"not written again")
    assert camera.ramps_of(args, 12) == made
    assert path.read_bytes() == b"not written again"


def test_pictures_are_drawn_in_other_light_and_framing_and_mirrored(camera):
    ramp = np.broadcast_to(np.arange(60, 140, 2, dtype=np.uint8)[None, :, None], (20, 40, 3))
    config = EFFICIENTNET.configure({**SIZES, "image_size": 16, "num_labels": 2})
    model = camera.whole(EFFICIENTNET.make(config))
    draw = camera.make_draw([np.ascontiguousarray(ramp)], model.image)
    found = draw(np.zeros(40, np.int64), np.random.default_rng(0)).astype(float)
    assert found.shape == (40, 16, 16, 3)
    slope = found[:, 8, 12, 0] - found[:, 8, 4, 0]
    assert 5 < (slope < 0).sum() < 35
    light = found.mean(axis=(1, 2, 3)) / ramp.mean()
    assert light.min() < 0.75 and light.max() > 1.25


def test_all_of_a_wide_frame_is_seen(camera):
    config = EFFICIENTNET.configure({**SIZES, "image_size": 128, "num_labels": 2})
    model = EFFICIENTNET.make(config)
    frame = np.zeros((144, 256, 3), np.uint8)
    frame[:, :20] = 255
    assert resize_and_crop(frame, model.image)[:, :5].max() == 0
    assert resize_and_crop(frame, camera.whole(model).image)[:, :5].min() == 255


def test_a_residual_network_is_trained_on_frames_and_their_labels(camera, clip, monkeypatch):
    tiny = {"layer_type": "basic", "depths": [1], "hidden_sizes": [8], "embedding_size": 8}
    monkeypatch.setitem(RESNET.zoo, "resnet-18", tiny)
    more = ["--architecture", "resnet-18", "--image-size", "16", "--steps", "30"]
    args = options(camera, monkeypatch, clip, *more)
    frames = [np.full((20, 20, 3), 60, np.uint8) for _ in range(20)]
    for frame in frames[10:]:
        frame[4:16, 4:16, 0] = 255
    model = camera.learnt(args, frames, np.arange(20) > 9)
    assert model.source["config"]["num_labels"] == 2
    encoder = ImageEncoder(camera.whole(model))
    images = np.stack([encoder.encode(frame) for frame in frames])
    answers = np.asarray(model.apply(model.params, images)).argmax(axis=1)
    np.testing.assert_array_equal(answers, np.arange(20) > 9)


def test_a_video_that_is_not_there_is_named(camera, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_camera.py", "nowhere.mp4"])
    with pytest.raises(SystemExit):
        camera.parse()
    assert "nowhere.mp4" in capsys.readouterr().err
