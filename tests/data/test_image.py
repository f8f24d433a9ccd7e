import numpy as np
import pytest
from PIL import Image

from apparate_jax.core import ImagePreprocess, InputSpec
from apparate_jax.data.image import ImageEncoder, decode_pixels, resize_and_crop, takes_images
from apparate_jax.errors import DataError
from apparate_jax.models import from_function, from_linen, from_nnx
from tests.data.pictures import encoded, flat, image_model, raw_model


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_picture_of_the_right_size_is_only_normalised():
    mean, std = (10.0, 20.0, 30.0), (2.0, 3.0, 4.0)
    pixels = noise(8, 8)
    found = ImageEncoder(image_model(mean=mean, std=std)).encode(pixels)
    expected = (pixels - np.array(mean)) / np.array(std)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_bgr_turns_channels_and_mean_is_in_that_order():
    pixels = flat((10, 20, 30))
    model = image_model(channels="bgr", mean=(30.0, 20.0, 9.0), std=(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(ImageEncoder(model).encode(pixels)[0, 0], [0.0, 0.0, 1.0])


def test_channels_first_where_the_input_has_them_first():
    pixels = noise(8, 8)
    last = ImageEncoder(image_model()).encode(pixels)
    first = ImageEncoder(image_model(shape=(3, 8, 8))).encode(pixels)
    assert first.shape == (3, 8, 8) and first.flags.c_contiguous
    np.testing.assert_array_equal(first, last.transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inputs(dtype):
    found = ImageEncoder(image_model(dtype=dtype)).encode(noise(8, 8))
    assert found.dtype.name == dtype


def test_whole_numbers_hold_pixels_but_nothing_normalised():
    pixels = noise(8, 8)
    found = ImageEncoder(raw_model(dtype="uint8")).encode(pixels)
    np.testing.assert_array_equal(found, pixels)
    with pytest.raises(DataError, match="cannot hold normalised"):
        ImageEncoder(image_model(dtype="uint8"))


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (3, 9), (1, 1), (16, 16)])
@pytest.mark.parametrize("resize", [None, 8, 12])
def test_any_picture_fits(height, width, resize):
    how = ImagePreprocess(8, 8, resize)
    assert resize_and_crop(noise(height, width), how).shape == (8, 8, 3)


@pytest.mark.parametrize(("height", "width"), [(30, 10), (10, 30), (10, 10)])
def test_an_input_that_is_not_square_is_covered(height, width):
    assert resize_and_crop(noise(height, width), ImagePreprocess(8, 24, 8)).shape == (8, 24, 3)


def test_the_middle_is_kept():
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    np.testing.assert_array_equal(resize_and_crop(pixels, ImagePreprocess(8, 8, 8)), 200)
    tall = pixels.transpose(1, 0, 2)
    np.testing.assert_array_equal(resize_and_crop(tall, ImagePreprocess(8, 8, 8)), 200)


def test_resizing_keeps_proportions_only_when_a_resize_is_given():
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 8:] = 255
    squeezed = resize_and_crop(pixels, ImagePreprocess(8, 8))
    assert squeezed[:, 0].max() == 0 and squeezed[:, -1].min() == 255
    assert (squeezed > 127).mean() == 0.5


def test_shrinking_averages_over_all_pixels():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    found = resize_and_crop(np.stack([board] * 3, -1), ImagePreprocess(8, 8))
    np.testing.assert_allclose(found.astype(int), 127, atol=3)


def test_interpolations_differ():
    kinds = [
        resize_and_crop(noise(20, 20), ImagePreprocess(8, 8, interpolation=kind))
        for kind in ("bilinear", "bicubic")
    ]
    assert (kinds[0] != kinds[1]).any()


def pictures_in_every_mode():
    grey = Image.fromarray(np.full((4, 6), 100, np.uint8))
    palette = grey.convert("P")
    see_through = Image.fromarray(np.full((4, 6, 4), (100, 100, 100, 7), np.uint8))
    clear = grey.convert("P")
    deep = Image.fromarray(np.full((4, 6), 100 * 257, np.uint16))
    return {
        "grey": encoded(grey),
        "grey with alpha": encoded(grey.convert("LA")),
        "RGBA": encoded(see_through),
        "palette": encoded(palette),
        "palette with transparency": encoded(clear, transparency=bytes([0] * 256)),
        "16 bit": encoded(deep),
        "CMYK": encoded(Image.fromarray(flat(100, 8)).convert("CMYK"), "JPEG", quality=95),
        "JPEG": encoded(flat(100), "JPEG", quality=95),
        "GIF": encoded(grey, "GIF"),
        "BMP": encoded(grey, "BMP"),
        "WEBP": encoded(flat(100), "WEBP", lossless=True),
    }


@pytest.mark.parametrize("name", list(pictures_in_every_mode()))
def test_every_mode_becomes_rgb(name):
    found = decode_pixels(pictures_in_every_mode()[name])
    assert found.dtype == np.uint8 and found.shape[2] == 3
    np.testing.assert_allclose(found.astype(int), 100, atol=2)


def test_black_and_white():
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    np.testing.assert_array_equal(decode_pixels(encoded(bits))[0, :, 0], [0, 255])


def test_pictures_stand_upright():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    found = decode_pixels(encoded(pixels, "PNG", exif=exif))
    assert found.shape == (8, 4, 3)
    assert found[:4].min() == 255 and found[4:].max() == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6])
def test_what_is_cut_off_is_no_picture(kind, keep):
    content = encoded(noise(64, 64), kind)
    with pytest.raises(DataError, match="no picture that can be decoded"):
        decode_pixels(content[: int(len(content) * keep)])


def test_something_else_is_no_picture():
    with pytest.raises(DataError, match="no picture"):
        decode_pixels(b"label,text\n0,hello\n" * 10)


def test_a_model_without_preprocessing_says_how_to_give_it():
    model = from_function(
        lambda p, x: x, {}, inputs=[InputSpec("image", (8, 8, 3), "float32")], name="mine"
    )
    assert takes_images(model)
    with pytest.raises(DataError, match=r"'mine'.*image=ImagePreprocess\(height, width"):
        ImageEncoder(model)


@pytest.mark.parametrize("shape", [(8,), (8, 8), (8, 8, 1), (2, 8, 8, 3)])
def test_a_model_that_takes_no_pictures(shape):
    model = from_function(lambda p, x: x, {}, inputs=[InputSpec("x", shape, "float32")])
    assert not takes_images(model)
    with pytest.raises(DataError, match="expected one input of shape"):
        ImageEncoder(model)


def test_preprocessing_for_another_size():
    model = image_model(8, shape=(16, 16, 3))
    with pytest.raises(DataError, match=r"takes pictures of 16x16, .* gives 8x8"):
        ImageEncoder(model)


def test_wrapped_modules_carry_it_too():
    import jax
    import jax.numpy as jnp
    from flax import linen, nnx

    how, example = ImagePreprocess(8, 8), jnp.zeros((1, 8, 8, 3))
    module = linen.Conv(4, (3, 3))
    variables = module.init(jax.random.key(0), example)
    assert from_linen(module, variables, inputs=[example], image=how).image == how
    other = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
    assert from_nnx(other, inputs=[example], image=how).image == how
