"""Cutting a video and making a longer one of it."""

import av
import numpy as np
import pytest

FRAMES, EVERY = 30, 5


@pytest.fixture
def clips(example):
    return example("clips")


@pytest.fixture
def video(tmp_path):
    """Frames that become brighter one by one, with a key frame every 5."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.gop_size, stream.max_b_frames = EVERY, 0
        for i in range(FRAMES):
            pixels = np.full((48, 64, 3), 20 + 6 * i, np.uint8)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        target.mux(stream.encode())
    return path


def frames(path):
    with av.open(str(path)) as source:
        return np.stack([f.to_ndarray(format="rgb24") for f in source.decode(video=0)])


def test_a_cut_begins_at_the_next_key_frame_and_keeps_every_pixel(clips, video, tmp_path):
    begins = clips.cut(video, 8, tmp_path / "rest.mp4")
    assert begins == 10
    np.testing.assert_array_equal(frames(tmp_path / "rest.mp4"), frames(video)[10:])


def test_a_cut_behind_the_last_key_frame_is_refused(clips, video, tmp_path):
    with pytest.raises(ValueError, match="no key frame"):
        clips.cut(video, FRAMES - 1, tmp_path / "rest.mp4")


def test_loops_repeat_the_rest_in_another_light(clips, video, tmp_path):
    loops = [clips.Change(), clips.Change(gain=0.5, down=0.0, right=1.0)]
    assert clips.loop(video, 20, tmp_path / "long.mp4", loops) == 20
    found = frames(tmp_path / "long.mp4")
    assert found.shape == (20, 42, 56, 3)
    first, second = found[:10].mean(axis=(1, 2, 3)), found[10:].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(first, 20 + 6 * np.arange(20, 30), atol=3)
    np.testing.assert_allclose(second, first / 2, atol=3)


def test_loops_are_as_high_as_they_are_asked_to_be(clips, video, tmp_path):
    assert clips.loop(video, 25, tmp_path / "small.mp4", clips.changes(2, 0), height=24) == 10
    found = frames(tmp_path / "small.mp4")
    assert found.shape == (10, 24, 32, 3)
    np.testing.assert_allclose(found[:5].mean(axis=(1, 2, 3)), 20 + 6 * np.arange(25, 30), atol=3)


def test_a_loop_ends_where_it_is_told_to(clips, video, tmp_path):
    assert clips.loop(video, 5, tmp_path / "part.mp4", [clips.Change()], height=24, end=15) == 10
    found = frames(tmp_path / "part.mp4")
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 20 + 6 * np.arange(5, 15), atol=3)


@pytest.mark.parametrize("height", [24, 216, 218, 360, 480])
def test_what_is_left_of_a_frame_is_as_high_as_it_should_be(clips, height):
    assert clips.kept(clips.taller(height)) == height


def test_loops_from_behind_the_end_are_refused(clips, video, tmp_path):
    with pytest.raises(ValueError, match=r"no picture for none\.mp4"):
        clips.loop(video, FRAMES, tmp_path / "none.mp4", [clips.Change()])


def test_a_change_of_framing_takes_the_part_that_it_says(clips):
    pixels = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)
    corner = clips.changed(pixels, clips.Change(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(corner, pixels[4:, 6:])
    assert clips.changed(pixels, clips.Change(gain=3.0)).max() == 255


def test_changes_are_seeded_and_the_first_is_none(clips):
    found = clips.changes(4, seed=1)
    assert found == clips.changes(4, seed=1) != clips.changes(4, seed=2)
    assert found[0] == clips.Change()
    assert all(clips.GAIN[0] <= c.gain <= clips.GAIN[1] for c in found)
