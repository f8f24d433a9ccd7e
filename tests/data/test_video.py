import gc

import av
import numpy as np
import pytest

from apparate_jax.core import InputSpec
from apparate_jax.data import load_data
from apparate_jax.data.video import LOOK_BACK, read_index
from apparate_jax.errors import DataError
from apparate_jax.models import from_function
from tests.data.pictures import SHARED, image_model, raw_model

CODECS = {
    "a.mp4": ("libx264", {"g": "12", "bf": "2"}),
    "a.mov": ("mpeg4", {"g": "12"}),
    "a.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "b.avi": ("mjpeg", {}),
    "a.mkv": ("libx264", {"g": "12", "bf": "2"}),
    "a.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
}
RATE = 10


def shade(row):
    """Neighbouring frames differ by far more than a codec loses."""
    return 20 + row * 37 % 200


def write(path, count=60, codec="libx264", options=None, noise=False):
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = options or {"g": "12"}
        for row in range(count):
            pixels = np.full((48, 64, 3), shade(row), np.uint8)
            if noise:
                pixels = pixels // 2 + rng.integers(0, 128, pixels.shape, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def shades(data, start=0, stop=None):
    (values,) = data.rows(start, len(data) if stop is None else stop)
    return values.mean((1, 2, 3))


def assert_rows(found, rows):
    np.testing.assert_allclose(found, [shade(row) for row in rows], atol=12)


@pytest.mark.parametrize("name", list(CODECS))
def test_every_frame_is_a_row(tmp_path, name):
    data = load_data(write(tmp_path / name, 60, *CODECS[name]), raw_model())
    assert (data.name, len(data), data.labels) == (name, 60, None)
    found = np.concatenate([shades(data, at, at + 8) for at in range(0, 60, 8)])
    assert_rows(found, range(60))
    assert (data.reader.decoded, data.reader.opened) == (60, 1)


@pytest.mark.parametrize("name", list(CODECS))
def test_frames_in_any_order_are_the_same_frames(tmp_path, name):
    path = write(tmp_path / name, 60, *CODECS[name])
    (expected,) = load_data(path, raw_model()).rows(0, 60)
    data = load_data(path, raw_model())
    for row in [
        50,
        0,
        59,
        13,
        12,
        11,
        58,
        30,
        36,
        2,
        0,
        *np.random.default_rng(0).integers(0, 60, 12),
    ]:
        np.testing.assert_array_equal(data.rows(row, row + 1)[0][0], expected[row])


def test_examples_in_order_decode_once_and_around_to_the_start(tmp_path):
    model = raw_model()
    data = load_data(write(tmp_path / "a.mp4"), model)
    found = [data.example(row % 60, model)["image"].mean() for row in range(130)]
    assert_rows(found, [row % 60 for row in range(130)])
    assert data.reader.opened == 3 and data.reader.decoded <= 60 + 60 + 12


def test_batches_may_overlap_without_decoding_again(tmp_path):
    data = load_data(write(tmp_path / "a.mp4"), raw_model())
    for start in range(0, 50, 2):
        assert_rows(shades(data, start, start + 8), range(start, start + 8))
    assert data.reader.opened == 1


def test_a_long_jump_starts_at_a_key_frame(tmp_path):
    data = load_data(write(tmp_path / "a.mp4", 240), raw_model())
    assert_rows(shades(data, 225, 226), [225])
    assert data.reader.decoded < 30


def alive():
    """Decoded frames in memory."""
    gc.collect()
    # Not isinstance: asking anything else than its type may run the code of lazy modules.
    return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())


@pytest.mark.slow
def test_memory_is_flat_over_a_long_video(tmp_path):
    path, before = write(tmp_path / "long.mp4", 1500), alive()
    data = load_data(path, raw_model())
    frames, held = [], []
    for start in range(0, 1500, 50):
        for row in range(start, start + 50):
            data.rows(row, row + 1)
        frames.append(alive() - before)
        held.append(data.held)
    assert data.reader.decoded == 1500
    # The frame on screen, the next one, and the one that the codec fills.
    assert max(frames) <= 3 and max(held) == LOOK_BACK


@pytest.mark.parametrize(
    ("fps", "rows"), [(10.0, range(60)), (5.0, range(0, 60, 2)), (1.0, range(0, 60, 10))]
)
def test_a_lower_rate_takes_the_frames_on_screen(tmp_path, fps, rows):
    data = load_data(write(tmp_path / "a.mp4"), raw_model(), fps=fps)
    assert len(data) == len(rows)
    assert_rows(shades(data), rows)


def test_a_low_rate_does_not_decode_everything(tmp_path):
    data = load_data(write(tmp_path / "a.mp4", 600), raw_model(), fps=0.2)
    assert len(data) == 12
    assert_rows(shades(data), range(0, 600, 50))
    assert data.reader.decoded < 200


def test_a_higher_rate_repeats_frames(tmp_path):
    data = load_data(write(tmp_path / "a.mp4", 20), raw_model(), fps=25.0)
    assert len(data) == 50
    assert_rows(shades(data), [row * 2 // 5 for row in range(50)])
    assert data.reader.decoded == 20


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none(tmp_path, fps):
    with pytest.raises(DataError, match="fps is"):
        load_data(write(tmp_path / "a.mp4", 3), raw_model(), fps=fps)


def test_limit_and_no_rows(tmp_path):
    data = load_data(write(tmp_path / "a.mp4"), raw_model(), limit=7)
    assert len(data) == 7 and len(shades(data, 5, 90)) == 2
    (nothing,) = data.rows(3, 3)
    assert nothing.shape == (0, 8, 8, 3)


def test_frames_are_prepared_like_pictures(tmp_path):
    path = write(tmp_path / "a.mp4", 2)
    (values,) = load_data(path, image_model(16, resize=16, shape=(3, 16, 16))).rows(0, 2)
    assert values.shape == (2, 3, 16, 16) and np.abs(values).max() <= 1.0


def test_the_index_is_two_numbers_a_frame(tmp_path):
    options = {"g": "12", "sc_threshold": "0"}
    index = read_index(write(tmp_path / "a.mp4", 60, options=options))
    assert len(index.times) == 60 and len(index.keys) == 5
    assert (np.diff(index.times) > 0).all() and set(index.keys) <= set(index.times)
    assert index.rate == RATE


@pytest.mark.parametrize("name", list(CODECS))
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.6])
def test_a_truncated_video_is_found_when_loading(tmp_path, name, keep):
    content = write(tmp_path / name, 60, *CODECS[name], noise=True).read_bytes()
    cut = tmp_path / f"cut.{name}"
    cut.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=f"cut.{name}"):
        load_data(cut, raw_model())


def test_frames_before_the_damage_are_whole_and_the_row_is_named(tmp_path):
    path = write(tmp_path / "b.avi", 60, *CODECS["b.avi"])
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    at = packets[30].pos
    content[at + 8 : at + 8 + packets[30].size] = bytes(packets[30].size)
    path.write_bytes(content)
    data = load_data(path, raw_model())
    assert_rows(shades(data, 0, 28), range(28))
    with pytest.raises(DataError, match=r"b.avi, row (29|30): it cannot be decoded"):
        data.rows(28, 40)


def test_something_else_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("not a video" * 100)
    with pytest.raises(DataError, match=r"a.mp4 cannot be decoded"):
        load_data(path, raw_model())


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="has no video that can be decoded"):
        load_data(path, raw_model())


def test_a_model_that_takes_no_pictures(tmp_path):
    model = from_function(lambda p, x: x, {}, inputs=[InputSpec("ids", (8,), "int32")])
    with pytest.raises(DataError, match="expected one input of shape"):
        load_data(write(tmp_path / "a.mp4", 3), model)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real videos are not there")
def test_a_real_camera():
    path = SHARED / "video" / "car-detection.mp4"
    data = load_data(path, image_model(64, resize=72))
    assert len(data) == 377
    for start in range(0, 377, 16):
        data.rows(start, start + 16)
    assert data.reader.decoded == 377 and data.reader.opened == 1
    assert len(load_data(path, image_model(64), fps=1.0)) == 30
