from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import apparate_jax as apx
from apparate_jax.data import ArrayDataset
from apparate_jax.errors import ModelError
from apparate_jax.models import from_zoo, rebuild, zoo_names
from apparate_jax.models.families import FAMILIES
from apparate_jax.models.roberta import token_positions
from apparate_jax.ramps.features import collect_features
from apparate_jax.ramps.heads import choose_kind
from apparate_jax.ramps.train import head_kinds
from tests.models.tiny_text import (
    CLASSES,
    KINDS,
    LAYERS,
    SEQ_LEN,
    SETTINGS,
    VOCAB,
    WIDTH,
    ZOO,
    batch,
    logits,
    make,
)

# Of the published classifiers with two classes.
PARAMETERS = {
    "minilm-l6": 22_713_986,
    "minilm-l12": 33_360_770,
    "bert-base": 109_483_778,
    "bert-large": 335_143_938,
    "distilbert": 66_955_010,
    "roberta-base": 124_647_170,
    "gpt2": 124_441_344,
    "gpt2-medium": 354_825_216,
}
POOLING = {"bert": "first", "distilbert": "first", "roberta": "first", "gpt2": "last"}
HEADS = {"first": "first_token", "last": "last"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return make(kind)


@pytest.fixture(scope="module")
def program(model):
    return apx.trace(model.apply, model.params, *batch())


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_zoo_models_have_the_published_sizes(name):
    family = next(f for f in FAMILIES.values() if name in f.zoo)
    shapes = family.make(family.configure(family.zoo[name])).params
    assert sum(np.prod(s.shape, dtype=int) for s in shapes.values()) == PARAMETERS[name]
    assert name in zoo_names()


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_zoo_models_say_that_their_weights_are_random(name):
    model = from_zoo(name, classes=4, **SETTINGS)
    assert model.source["random_weights"] and model.name == name
    assert jax.eval_shape(model.apply, model.params, *batch()).shape == (3, 4)


def test_shapes_and_description(kind, model, program):
    assert logits(model, batch()).shape == (3, CLASSES)
    assert [(s.name, s.shape, s.dtype) for s in model.inputs] == [
        ("input_ids", (SEQ_LEN,), "int32"),
        ("attention_mask", (SEQ_LEN,), "int32"),
    ]
    assert model.inputs[0].high == VOCAB
    assert (model.mask, model.pooling) == ("attention_mask", POOLING[kind])
    assert program.num_classes == CLASSES


def test_two_sites_a_layer(kind, model, program):
    named = [f"layer_{i}/{part}" for i in range(LAYERS) for part in ("attention", "feed_forward")]
    if kind == "gpt2":  # its pooling is no work of its own: the norm of one token
        named.pop()
    assert [s.name for s in program.sites] == [*named, "pooler"]
    assert all(s.shape == (3, SEQ_LEN, WIDTH) for s in program.sites[:-1])
    assert program.sites[-1].shape == (3, WIDTH)
    assert choose_kind(program.sites[0], model) == HEADS[model.pooling]


def test_recomposed_stages_give_exactly_the_logits(model, program):
    inputs = tuple(map(jnp.asarray, batch()))
    with jax.disable_jit():  # operation by operation: compilers may reassociate sums
        expected = model.apply(model.params, *inputs)
        value = None
        for stage in program.split(range(len(program.sites))):
            (value,) = stage.body(stage.constants, value, *inputs)
    np.testing.assert_array_equal(value, expected)


def test_compiled_stages_give_the_logits(model, program):
    inputs, value = batch(), None
    for stage in program.split([1, 2]):
        value = stage(value, *inputs)
    np.testing.assert_allclose(value, logits(model, inputs), rtol=1e-5, atol=1e-6)


def test_half_precision_from_end_to_end(kind, model):
    half = make(kind, dtype="bfloat16")
    assert {p.dtype.name for p in half.params.values()} == {"bfloat16"}
    rounded = replace(half, params={p: v.astype("bfloat16") for p, v in model.params.items()})
    program = apx.trace(rounded.apply, rounded.params, *batch())
    assert program.output.dtype.name == "bfloat16" and len(program.sites) >= 2 * LAYERS
    full = logits(model, batch())
    np.testing.assert_allclose(logits(rounded, batch()), full, atol=0.05 * np.abs(full).max())


def test_logits_do_not_depend_on_the_amount_or_content_of_padding(kind, model):
    lengths = (9, 7, 1)
    expected = logits(model, batch(lengths))
    longer = make(kind, seq_len=2 * SEQ_LEN)
    for padded in (batch(lengths, 2 * SEQ_LEN), batch(lengths, 2 * SEQ_LEN, padding=1)):
        np.testing.assert_allclose(logits(longer, padded), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits(model, batch(lengths, padding=9)), expected, atol=1e-6)


def test_every_valid_token_matters_and_no_other(model):
    ids, mask = batch((5,))
    rows = np.concatenate([ids, *(_other(ids, t) for t in range(SEQ_LEN))])
    before, *after = logits(model, (rows, np.repeat(mask, len(rows), axis=0)))
    changed = [not np.allclose(row, before, atol=1e-6) for row in after]
    assert changed == [True] * 5 + [False] * (SEQ_LEN - 5)


def _other(ids, position):
    return np.where(np.arange(SEQ_LEN) == position, ids % (VOCAB - 6) + 6, ids).astype(np.int32)


def test_gpt2_sees_nothing_that_comes_later():
    model = make("gpt2")
    ids, mask = batch((SEQ_LEN,))
    program = apx.trace(model.apply, model.params, ids, mask)
    values = jax.jit(program.taps(range(2 * LAYERS - 1)))
    before, _ = values(ids, mask)
    after, _ = values(_other(ids, 6), mask)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new[:, :6], old[:, :6], rtol=1e-6, atol=1e-6)
        assert (np.abs(new[:, 6:] - old[:, 6:]).max(-1) > 1e-6).all()


def test_an_empty_text_has_an_answer(model):
    assert np.isfinite(logits(model, batch((0, SEQ_LEN)))).all()


def test_roberta_counts_positions_after_the_padding_id():
    ids = jnp.asarray([[0, 7, 8, 2, 1, 1], [1, 1, 0, 9, 2, 4]])
    mask = jnp.asarray([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0]])
    expected = [[2, 3, 4, 5, 1, 1], [1, 1, 2, 3, 4, 1]]
    np.testing.assert_array_equal(token_positions(ids, mask, 1), expected)


def test_roberta_has_no_positions_for_the_first_ids():
    assert make("roberta", max_position_embeddings=SEQ_LEN + 2).inputs[0].shape == (SEQ_LEN,)
    with pytest.raises(ModelError, match=f"seq_len is {SEQ_LEN}, expected 1 to {SEQ_LEN - 1}"):
        make("roberta", max_position_embeddings=SEQ_LEN + 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 33}, "hidden_size 33 is no multiple of num_attention_heads 4"),
        ({"hidden_act": "swish2"}, r"hidden_act is 'swish2', expected one of \['gelu'"),
        ({"seq_len": 0}, "seq_len is 0, expected 1 to"),
        ({"num_labels": 1}, "num_labels is 1, expected at least 2"),
        ({"dtype": "float16"}, "dtype is 'float16', expected 'float32' or 'bfloat16'"),
        ({"depth": 3}, r"unknown settings \['depth'\]"),
    ],
)
def test_settings_that_do_not_fit(kind, settings, message):
    with pytest.raises(ModelError, match=message):
        from_zoo(ZOO[kind], **{**SETTINGS, **settings})


def test_a_checkpoint_can_make_the_model_again(model):
    again = rebuild(model.source, {})
    assert {p: v.shape for p, v in again.params.items()} == {
        p: v.shape for p, v in model.params.items()
    }
    filled = replace(again, params=model.params)
    np.testing.assert_array_equal(logits(filled, batch()), logits(model, batch()))


def test_ramps_pool_where_gpt2_does():
    model, (ids, mask) = make("gpt2"), batch()
    program = apx.trace(model.apply, model.params, ids, mask)
    kinds = head_kinds(program.sites, model)
    assert set(kinds.values()) == {"last", "identity"}
    values, _ = program.taps([1])(ids, mask)
    data = ArrayDataset("rows", (ids, mask))
    with collect_features(program, model, data, kinds, batch_size=3, max_bytes=1 << 20) as found:
        expected = np.asarray(values[0])[[0, 1, 2], [SEQ_LEN - 1, 6, 0]]
        np.testing.assert_allclose(found.pooled[1], expected, rtol=1e-5, atol=1e-6)
