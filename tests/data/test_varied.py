"""Pictures in other light and framing: which rows they are, and what is changed."""

import numpy as np
import pytest

from apparate_jax.core import InputSpec
from apparate_jax.data import load_data
from apparate_jax.data.image import ImageEncoder
from apparate_jax.data.varied import GAIN, KEPT, Varied
from apparate_jax.errors import DataError
from apparate_jax.models import from_function
from tests.data.pictures import encoded, image_model, raw_model, shades, write_pictures


def test_each_picture_is_shown_as_it_is_and_then_in_other_light(tmp_path):
    model = raw_model()
    data = load_data(write_pictures(tmp_path, [100, 50]), model)
    varied = Varied(data, model, 40)
    assert (varied.name, len(varied), varied.labels) == (data.name, 82, None)
    first, second = np.split(np.asarray(shades(varied)), 2)
    assert (first[0], second[0]) == (100, 50)
    for seen, shade in ((first[1:], 100), (second[1:], 50)):
        gains = seen / shade
        assert GAIN[0] - 0.02 <= gains.min() < 0.75 and 1.25 < gains.max() <= GAIN[1] + 0.02
    assert not np.array_equal(first / 2, second)


def test_rows_do_not_depend_on_how_they_are_read(tmp_path):
    model = raw_model()
    data = load_data(write_pictures(tmp_path, [10, 90, 200]), model)
    varied = Varied(data, model, 2, seed=4)
    whole = shades(varied)
    assert [shades(varied, row, row + 1)[0] for row in reversed(range(9))] == whole[::-1]
    assert shades(varied, 4, 100) == whole[4:] and shades(varied, 3, 3) == []
    assert varied.example(5, model)["image"][0, 0, 0] == whole[5]
    assert shades(Varied(data, model, 2, seed=4)) == whole != shades(Varied(data, model, 2, seed=5))


def test_labels_are_those_of_the_pictures(tmp_path):
    write_pictures(tmp_path / "a", [1, 2])
    write_pictures(tmp_path / "b", [3])
    model = raw_model()
    varied = Varied(load_data(tmp_path, model), model, 1)
    assert varied.labels.tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("shape", [(40, 40, 3), (3, 40, 40)], ids=["last", "first"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_a_part_is_brought_to_the_size_of_the_model(shape, channels):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 20:, 0], pixels[20:, :, 1] = 100, 200
    encoder = ImageEncoder(image_model(40, shape=shape, channels=channels))

    def pictures(down, right, gain=1.0):
        there = encoder.changed(encoder.encode(pixels), gain, KEPT, down, right)
        assert there.shape == shape and there.dtype == np.float32
        return encoder._pixels(there).astype(int)

    assert np.array_equal(encoder._pixels(encoder.encode(pixels)), pixels)
    for down, right in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0)):
        seen = pictures(down, right)
        # The edge is at 20 of 40; what is kept begins 4 further where all of it is moved.
        assert (seen[..., 0] > 50).mean(axis=1) == pytest.approx((16 + 4 * right) / 36, abs=0.03)
        assert (seen[..., 1] > 100).mean(axis=0) == pytest.approx((16 + 4 * down) / 36, abs=0.03)
    dark, bright = pictures(0.5, 0.5, 0.6), pictures(0.5, 0.5, 1.4)
    assert (dark[..., 0].max(), dark[..., 1].max()) == (60, 120)
    assert (bright[..., 0].max(), bright[..., 1].max()) == (140, 255)


def test_what_cannot_vary_is_refused(tmp_path):
    model = raw_model()
    data = load_data(write_pictures(tmp_path, [1]), model)
    with pytest.raises(DataError, match="are to vary -1 times, expected at least 1"):
        Varied(data, model, -1)
    spec = InputSpec("x", (3,), "float32")
    numbers = from_function(lambda params, x: x, {}, inputs=[spec])
    with pytest.raises(DataError, match="for pictures"):
        Varied(data, numbers, 1)


def test_a_damaged_picture_is_named_by_its_own_row(tmp_path):
    model = raw_model()
    write_pictures(tmp_path, [1, 2])
    (tmp_path / "1.png").write_bytes(encoded(np.zeros((8, 8, 3), np.uint8))[:-40])
    varied = Varied(load_data(tmp_path, model), model, 3)
    with pytest.raises(DataError, match=r"row 1 \(1\.png\)"):
        varied.rows(5, 6)
