import jax
import jax.numpy as jnp
import numpy as np
import pytest

import apparate_jax as apx
from apparate_jax.core import ImagePreprocess
from apparate_jax.errors import ModelError
from apparate_jax.models import from_zoo, rebuild
from apparate_jax.models.families import FAMILIES
from apparate_jax.models.vgg import adaptive_mean
from apparate_jax.ramps.heads import choose_kind
from tests.models.tiny_vision import CLASSES, NAMES, family_and_config, logits, make

# Trainable parameters of the published models with 1,000 classes.
PARAMETERS = {
    "resnet-18": 11_689_512,
    "resnet-34": 21_797_672,
    "resnet-50": 25_557_032,
    "resnet-101": 44_549_160,
    "vgg-11": 132_863_336,
    "vgg-13": 133_047_848,
    "vgg-16": 138_357_544,
    "vgg-11-bn": 132_868_840,
    "vgg-13-bn": 133_053_736,
    "vgg-16-bn": 138_365_992,
    "efficientnet-lite0": 4_652_008,
    "vit-small": 22_050_664,
    "vit-base": 86_567_656,
}
SITES = {
    "resnet-basic": ["stem", "stage_0/block_0", "stage_0/block_1", "pool"],
    "resnet-bottleneck": ["stem", "stage_0/block_0", "stage_1/block_0", "pool"],
    "vgg": ["stack_0/conv_0", "stack_1/conv_0", "stack_1/conv_1", "grid", "dense_1"],
    "vgg-bn": ["stack_0/conv_0", "stack_1/conv_0", "stack_1/conv_1", "dense_0", "dense_1"],
    "efficientnet": [
        "stem",
        "block_0",
        "block_1/expand",
        "block_1/depthwise",
        "block_1",
        "block_2",
        "head",
    ],
    "vit": [
        "embeddings",
        "layer_0/attention",
        "layer_0/feed_forward",
        "layer_1/attention",
        "norm",
    ],
}


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return make(name)


@pytest.fixture(scope="module")
def program(model):
    return apx.trace(model.apply, model.params, *model.example_inputs(2))


def test_sites_stand_at_every_boundary(name, model, program):
    assert [site.name for site in program.sites] == SITES[name]
    kinds = {choose_kind(site, model) for site in program.sites}
    expected = {"vit": {"first_token", "identity"}}.get(name, {"spatial_mean", "identity"})
    assert kinds == expected


def test_the_stages_of_all_cuts_recompose_exactly(model, program):
    inputs = model.example_inputs(2)
    whole = np.asarray(program.split([])[0](None, *inputs))
    assert whole.shape == (2, CLASSES)
    carry = None
    for stage in program.split(range(len(program.sites))):
        carry = stage(carry, *inputs)
    np.testing.assert_array_equal(carry, whole)


def test_bfloat16_computes_in_bfloat16_and_is_close(name, model):
    family, config = family_and_config(name, dtype="bfloat16")
    half = family.make(config, 0)
    params = {p: jnp.asarray(v, half.params[p].dtype) for p, v in model.params.items()}
    inputs = model.example_inputs(3)
    result = jax.jit(half.apply)(params, *inputs)
    assert result.dtype == jnp.bfloat16
    exact = logits(model)
    np.testing.assert_allclose(result, exact, atol=0.06 * np.abs(exact).max())
    program = apx.trace(half.apply, half.params, *inputs)
    assert program.sites[0].dtype == "bfloat16"
    wide = [path for path, value in half.params.items() if value.dtype == jnp.float32]
    assert all("norm/" in path for path in wide)


def test_every_parameter_has_one_published_name(name, model):
    family, config = family_and_config(name)
    places = family.tensors(config)
    assert set(places) == set(model.params)
    assert len({place.name for place in places.values()}) == len(places)
    assert family.head in {place.name for place in places.values()}


def test_a_model_is_made_again_from_its_source(name):
    family, config = family_and_config(name)
    made = family.make(config, 0)
    again = rebuild(made.source, {})
    assert {p: (v.shape, v.dtype) for p, v in again.params.items()} == {
        p: (v.shape, v.dtype) for p, v in made.params.items()
    }
    assert again.image == made.image
    np.testing.assert_array_equal(
        jax.jit(again.apply)(made.params, *made.example_inputs(2)), logits(made, 2)
    )


def test_inputs_and_preprocessing_are_of_one_size(model):
    (spec,) = model.inputs
    assert spec.name == "image"
    assert spec.dtype == "float32"
    assert spec.shape == (model.image.height, model.image.width, 3)


def _is_trainable(path):
    return not path.endswith(("/mean", "/var"))


@pytest.mark.parametrize("zoo_name", PARAMETERS)
def test_parameter_counts_are_those_of_the_published_models(zoo_name):
    family = next(f for f in FAMILIES.values() if zoo_name in f.zoo)
    params = family.make(family.configure(family.zoo[zoo_name])).params
    assert sum(v.size for p, v in params.items() if _is_trainable(p)) == PARAMETERS[zoo_name]


@pytest.mark.parametrize(
    ("zoo_name", "expected"),
    [
        ("resnet-50", ImagePreprocess(224, 224, 256)),
        ("resnet-18-cifar", ImagePreprocess(32, 32)),
        ("vgg-16", ImagePreprocess(224, 224, 256)),
        (
            "efficientnet-lite0",
            ImagePreprocess(224, 224, 256, (127,) * 3, (128,) * 3, interpolation="bicubic"),
        ),
        ("vit-base", ImagePreprocess(224, 224, mean=(127.5,) * 3, std=(127.5,) * 3)),
    ],
)
def test_preprocessing_is_that_of_the_published_models(zoo_name, expected):
    family = next(f for f in FAMILIES.values() if zoo_name in f.zoo)
    assert family.make(family.configure(family.zoo[zoo_name])).image == expected


def test_the_zoo_gives_random_weights_of_the_asked_shape():
    model = from_zoo("resnet-18-cifar", classes=7, seed=3)
    assert model.source["random_weights"] is True
    result = logits(model)
    assert result.shape == (3, 7)
    assert np.isfinite(result).all() and len(np.unique(result)) > 1
    other = from_zoo("resnet-18-cifar", classes=7, seed=4)
    assert not np.array_equal(other.params["stem/conv/kernel"], model.params["stem/conv/kernel"])


def _adaptive_by_hand(x, grid):
    size = x.shape[1]
    out = np.zeros((x.shape[0], grid, grid, x.shape[3]))
    for i in range(grid):
        for j in range(grid):
            rows = slice(i * size // grid, int(np.ceil((i + 1) * size / grid)))
            columns = slice(j * size // grid, int(np.ceil((j + 1) * size / grid)))
            out[:, i, j] = x[:, rows, columns].mean((1, 2))
    return out


@pytest.mark.parametrize("size", [1, 3, 5, 7, 8, 14])
def test_adaptive_mean(size):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    np.testing.assert_allclose(adaptive_mean(x, 7), _adaptive_by_hand(x, 7), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resnet-basic", {"layer_type": "dense"}, "layer_type is 'dense'"),
        ("resnet-basic", {"depths": (2,)}, "as many of both"),
        ("resnet-basic", {"image_size": "48x192"}, "image_size is '48x192'"),
        ("resnet-basic", {"num_labels": 1}, "num_labels 1"),
        ("resnet-basic", {"seq_len": 8}, "unknown settings"),
        ("vgg", {"dtype": "int8"}, "dtype is 'int8'"),
        ("vgg", {"image_size": 2}, "image_size is 2"),
        ("efficientnet", {"kernels": (3,)}, "as many of each"),
        ("vit", {"image_size": 33}, "multiples of"),
        ("vit", {"num_attention_heads": 3}, "multiples of"),
        ("vit", {"hidden_act": "tanh"}, "hidden_act is 'tanh'"),
    ],
)
def test_settings_that_do_not_fit_are_named(name, changes, message):
    with pytest.raises(ModelError, match=message):
        family_and_config(name, **changes)


def test_a_typed_image_size_is_a_number():
    assert family_and_config("resnet-basic", image_size="64")[1].image_size == 64
