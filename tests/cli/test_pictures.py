"""Pictures and videos through the commands."""

import av
import numpy as np
import pytest
from PIL import Image

from apparate_jax.checkpoint import load_checkpoint
from tests.cli import pictures, tiny

COLOURS = np.random.default_rng(0).integers(0, 256, (120, 3)).astype(np.uint8)


def flat(colour, size=12):
    return np.broadcast_to(colour, (size, size, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for row, colour in enumerate(COLOURS):
        path = root / ("warm" if colour[0] > colour[2] else "cold") / f"{row}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(flat(colour)).save(path)
    return root


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "colours.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for colour in COLOURS:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(flat(colour, 16)), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def checkpoint(apparate, tmp_path):
    path = tmp_path / "c"
    assert apparate("inject", pictures.REFERENCE, "-o", path).status == 0
    return path


def test_how_pictures_become_inputs_is_in_the_checkpoint(checkpoint):
    assert load_checkpoint(checkpoint).model.image == pictures.model().image


def test_ramps_from_a_folder_of_pictures(apparate, checkpoint, folder):
    words = ("--data", folder, "--data-frac", 1, "--json", "-")
    done = apparate("train-ramps", checkpoint, *words)
    assert done.status == 0
    facts = done.json["training"]
    assert facts["data"] == folder.name
    assert facts["examples"] + facts["validation_examples"] == len(COLOURS)
    numbers = 8 + 8 + pictures.CLASSES
    assert f"feature cache: 120 samples x {numbers} numbers, 0.0 MiB in memory\n" in done.err


def test_ramps_from_pictures_in_other_light(apparate, checkpoint, folder):
    words = ("--data", folder, "--data-frac", 0.5, "--vary", 3, "--json", "-")
    done = apparate("train-ramps", checkpoint, *words)
    assert done.status == 0, done.err
    facts = done.json["training"]
    assert facts["vary"] == 3
    assert facts["examples"] + facts["validation_examples"] == len(COLOURS) // 2 * 4


def test_a_model_that_takes_no_pictures_cannot_see_them_vary(apparate, tmp_path):
    assert apparate("inject", tiny.REFERENCE, "-o", tmp_path / "c").status == 0
    rows = np.zeros((20, tiny.WIDTH), np.float32)
    np.savez(tmp_path / "d.npz", x=rows)
    words = ("--data", tmp_path / "d.npz", "--data-frac", 1, "--vary", 1)
    done = apparate("train-ramps", tmp_path / "c", *words)
    assert done.status == 1 and "for pictures" in done.error


def test_features_on_disk_give_the_same_ramps_and_are_gone(apparate, checkpoint, folder, tmp_path):
    words = ("--data", folder, "--data-frac", 1)
    assert apparate("train-ramps", checkpoint, *words).status == 0
    before = load_checkpoint(checkpoint).ramps
    cache = tmp_path / "cache"
    done = apparate("train-ramps", checkpoint, *words, "--cache-dir", cache)
    assert done.status == 0 and f"MiB on disk in {cache}\n" in done.err
    assert list(cache.iterdir()) == []
    for one, other in zip(before, load_checkpoint(checkpoint).ramps, strict=True):
        np.testing.assert_array_equal(one.params["kernel"], other.params["kernel"])


def test_ramps_from_a_video_and_a_benchmark_on_it(apparate, checkpoint, video):
    words = ("--data", video, "--data-frac", 1, "--split", "last")
    assert apparate("train-ramps", checkpoint, *words).status == 0
    saved = load_checkpoint(checkpoint)
    assert saved.validation.rows.tolist() == list(range(96, 120))
    short = ("--rounds", 1, "--round-seconds", 0.3, "--saturation-seconds", 0.2)
    done = apparate(
        "bench", "live", checkpoint, "--data", video, "--fps", 5, *short,
        "--batch-sizes", "1,2", "--ramp-budget", 100, "--json", "-",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.json["workload"] == "colours.mp4" and done.json["oracle"]["p50_ms"] > 0


def test_a_model_without_preprocessing(apparate, tmp_path, folder):
    path = tmp_path / "c"
    assert apparate("inject", "tests.cli.pictures:blank", "-o", path).status == 0
    done = apparate("train-ramps", path, "--data", folder)
    assert done.status == 1 and "image=ImagePreprocess(height, width" in done.error


def test_a_damaged_picture(apparate, checkpoint, tmp_path):
    for row in range(60):
        Image.fromarray(flat(COLOURS[row])).save(tmp_path / f"{row:02}.png")
    (tmp_path / "33.png").write_bytes(b"\x89PNG damaged")
    done = apparate("train-ramps", checkpoint, "--data", tmp_path, "--data-frac", 1)
    assert done.status == 1 and "row 33 (33.png): no picture" in done.error
    assert load_checkpoint(checkpoint).ramps == ()
