import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.core import InputSpec, Model, Site
from apparate_jax.errors import RampError
from apparate_jax.ramps.heads import (
    HEAD_KINDS,
    HeadKind,
    choose_kind,
    head_bytes,
    head_kind,
    head_logits,
    mask_position,
    pool,
)

SEQUENCE = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
MASK = np.asarray([[1] * 7, [1] * 2 + [0] * 5, [0, 1, 0, 1, 1, 0, 0]], np.int32)


def model(**options):
    return Model("m", lambda params, x: x, {}, **options)


def site(*shape):
    return Site(0, "s", 0.5, shape, "float32", "")


def pooled(kind, value, mask=None):
    out = pool(kind, jnp.asarray(value), None if mask is None else jnp.asarray(mask))
    assert out.dtype == jnp.float32
    return np.asarray(out)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.bool_])
def test_masked_mean_counts_valid_positions_only(dtype):
    expected = [SEQUENCE[i][MASK[i] == 1].mean(0) for i in range(3)]
    np.testing.assert_allclose(pooled("masked_mean", SEQUENCE, MASK.astype(dtype)), expected, 1e-5)
    other = np.where(MASK[..., None] == 1, SEQUENCE, 1e6).astype(np.float32)
    np.testing.assert_array_equal(
        pooled("masked_mean", other, MASK), pooled("masked_mean", SEQUENCE, MASK)
    )


def test_masked_mean_without_a_fitting_mask_is_the_mean():
    for mask in (None, MASK[:, :5]):
        np.testing.assert_allclose(
            pooled("masked_mean", SEQUENCE, mask), SEQUENCE.mean(1), rtol=1e-5, atol=1e-6
        )


def test_masked_mean_of_padding_alone_is_zero():
    np.testing.assert_array_equal(pooled("masked_mean", SEQUENCE, np.zeros((3, 7))), 0.0)


@pytest.mark.parametrize("mask", [None, np.ones((1, 4096), np.int32)])
def test_half_precision_is_summed_in_float32(mask):
    value = jnp.ones((1, 4096, 2), jnp.bfloat16) * 1.0078125
    np.testing.assert_allclose(pooled("masked_mean", value, mask), 1.0078125, rtol=1e-6)


def test_first_token_images_and_vectors():
    image = np.random.default_rng(1).normal(size=(2, 4, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(pooled("first_token", SEQUENCE, MASK), SEQUENCE[:, 0])
    np.testing.assert_allclose(pooled("spatial_mean", image), image.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(pooled("spatial_mean_first", image), image.mean((2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(pooled("identity", image[:, 0, 0]), image[:, 0, 0])


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.bool_])
def test_last_is_the_last_valid_token(dtype):
    expected = SEQUENCE[[0, 1, 2], [6, 1, 4]]
    np.testing.assert_array_equal(pooled("last", SEQUENCE, MASK.astype(dtype)), expected)


def test_last_without_a_fitting_mask_is_the_last_position():
    for mask in (None, MASK[:, :5]):
        np.testing.assert_array_equal(pooled("last", SEQUENCE, mask), SEQUENCE[:, -1])


def test_last_of_padding_alone_is_the_first_token():
    np.testing.assert_array_equal(pooled("last", SEQUENCE, np.zeros((3, 7))), SEQUENCE[:, 0])


def test_video_is_pooled_over_time_and_space():
    video = np.random.default_rng(1).normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(
        pooled("spatial_mean", video), video.mean((1, 2, 3)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("kind", sorted(HEAD_KINDS))
@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 6), (2, 4, 3, 6), (2, 3, 4, 5, 6)])
def test_width_is_that_of_the_pooled_value(kind, shape):
    entry = HEAD_KINDS[kind]
    if entry.fits(shape):
        assert pooled(kind, np.zeros(shape, np.float32)).shape == (2, entry.width(shape))
        assert head_bytes(kind, shape, 7) == 4 * 7 * (entry.width(shape) + 1)
    else:
        with pytest.raises(RampError, match=f"{kind}.*does not take"):
            pool(kind, jnp.zeros(shape), None)


def test_the_kind_follows_the_model():
    assert choose_kind(site(2, 7, 5), model(pooling="first")) == "first_token"
    assert choose_kind(site(2, 7, 5), model(pooling="last")) == "last"
    assert choose_kind(site(2, 7, 5), model(pooling="mean")) == "masked_mean"
    assert choose_kind(site(2, 4, 4, 5), model()) == "spatial_mean"
    assert choose_kind(site(2, 5), model()) == "identity"
    assert choose_kind(site(2), model()) is None


def test_the_kind_follows_where_the_model_keeps_its_channels():
    first = model(channels="first")
    assert choose_kind(site(2, 5, 4, 4), first) == "spatial_mean_first"
    assert choose_kind(site(2, 5, 3, 4), first) == "spatial_mean_first"
    assert choose_kind(site(2, 4, 4, 4), first) == "spatial_mean_first"
    # Exporters leave some values transposed: only the axes after the batch are a square.
    assert choose_kind(site(2, 4, 4, 5), first) == "spatial_mean"
    assert choose_kind(site(2, 5, 4, 4), model()) == "spatial_mean"
    assert choose_kind(site(2, 7, 5), first) == choose_kind(site(2, 7, 5), model())


def test_users_extend_the_table(monkeypatch):
    largest = HeadKind(
        lambda value, mask: value.max(axis=1).astype(jnp.float32),
        lambda shape: shape[-1],
        lambda shape: len(shape) == 3,
    )
    monkeypatch.setitem(HEAD_KINDS, "largest", largest)
    np.testing.assert_array_equal(pooled("largest", SEQUENCE), SEQUENCE.max(1))


def test_unknown_kinds_are_named_with_the_known_ones():
    with pytest.raises(RampError, match=r"'median' is unknown.*masked_mean"):
        pool("median", jnp.asarray(SEQUENCE), None)
    with pytest.raises(RampError, match="none, leave this site without a ramp"):
        head_kind("identity", (3,))


def test_head_logits_is_one_dense_layer():
    rng = np.random.default_rng(2)
    kernel, bias = rng.normal(size=(5, 3)).astype("f"), rng.normal(size=3).astype("f")
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    np.testing.assert_allclose(
        head_logits(params, SEQUENCE[0]), SEQUENCE[0] @ kernel + bias, rtol=1e-5, atol=1e-6
    )


def test_the_mask_is_found_by_name():
    specs = (InputSpec("ids", (7,), "int32"), InputSpec("valid", (7,), "int32"))
    assert mask_position(model(inputs=specs, mask="valid")) == 1
    assert mask_position(model(inputs=specs)) is None
    with pytest.raises(RampError, match="describe the inputs"):
        mask_position(model(mask="valid"))


def test_unknown_style_is_named():
    params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    with pytest.raises(RampError, match=r"style 'deep' is unknown, expected one of \['hidden'"):
        head_logits(params, jnp.zeros((1, 2)), "deep")
