"""Hugging Face directories: what is read, and what is refused before anything is loaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.data.text import TextEncoder
from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models import from_hf, rebuild
from tests.models import bert_directory

HEAD = "classifier.weight"


@pytest.fixture
def root(tmp_path):
    return bert_directory.write(tmp_path / "tiny-bert")


def logits_of(model, texts):
    encoded = TextEncoder(model)(texts)
    inputs = [encoded[spec.name] for spec in model.inputs]
    return np.asarray(jax.jit(model.apply)(model.params, *inputs))


TEXTS = ["a good film", "it was awful", "great great great story"]


def test_what_a_directory_says(root):
    model = from_hf(root)
    assert model.name == "tiny-bert" and model.labels == ("negative", "neutral", "positive")
    assert model.mask == "attention_mask" and model.pooling == "first"
    assert {spec.shape for spec in model.inputs} == {(16,)}, "all positions that the model has"
    assert model.assets == {"tokenizer.json": (root / "tokenizer.json").read_bytes()}
    assert logits_of(model, TEXTS).shape == (3, 3)
    total = sum(value.size for value in bert_directory.tensors().values())
    assert sum(value.size for value in model.params.values()) == total


def test_padding_and_length_do_not_change_an_answer(root):
    expected = logits_of(from_hf(root), TEXTS)
    np.testing.assert_allclose(logits_of(from_hf(root, seq_len=8), TEXTS), expected, atol=1e-5)
    together = logits_of(from_hf(root), [*TEXTS, "story " * 20])
    np.testing.assert_allclose(together[:3], expected, atol=1e-5)


def test_every_tensor_counts(root):
    """Changing any one of them changes the logits: none is forgotten or read twice."""
    model = from_hf(root)
    encoded = TextEncoder(model)(["a good film"])
    inputs = [encoded[spec.name] for spec in model.inputs]
    apply = jax.jit(model.apply)
    before = apply(model.params, *inputs)
    weights = bert_directory.tensors()
    # The softmax over positions does not see what is added to all of them.
    unseen = {n for n in weights if n.endswith("self.key.bias")}
    for name in sorted(set(weights) - unseen):
        changed = {**weights, name: weights[name] + np.float32(0.5) * _ramp(weights[name].shape)}
        bert_directory.write(root, changed)
        after = apply(from_hf(root).params, *inputs)
        assert np.abs(after - before).max() > 1e-6, name


def _ramp(shape):
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def test_shards(root, tmp_path):
    parts = from_hf(bert_directory.write_shards(tmp_path / "parts"))
    np.testing.assert_array_equal(logits_of(parts, TEXTS), logits_of(from_hf(root), TEXTS))


def test_older_names(root):
    """``gamma`` and ``beta``, no ``bert.`` in front, buffers and a language model's head."""
    expected = logits_of(from_hf(root), TEXTS)
    older = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in bert_directory.tensors().items()
    }
    older["embeddings.position_ids"] = np.arange(16, dtype=np.int64)[None]
    older["cls.predictions.bias"] = np.zeros(5, np.float32)
    bert_directory.write(root, older)
    np.testing.assert_array_equal(logits_of(from_hf(root), TEXTS), expected)


def test_half_precision(root):
    model = from_hf(root, dtype="bfloat16")
    assert {value.dtype for value in model.params.values()} == {jnp.dtype(jnp.bfloat16)}
    expected = logits_of(from_hf(root), TEXTS)
    np.testing.assert_allclose(logits_of(model, TEXTS).astype(np.float32), expected, atol=0.15)


def test_it_can_be_made_again_from_its_source(root):
    model = from_hf(root, seq_len=6)
    source = json.loads(json.dumps(dict(model.source)))
    again = rebuild(source, {})
    assert jax.tree.map(jnp.shape, again.params) == jax.tree.map(jnp.shape, model.params)
    assert again.inputs == model.inputs and again.source == source
    inputs = model.example_inputs(2)
    np.testing.assert_array_equal(
        again.apply(model.params, *inputs), model.apply(model.params, *inputs)
    )


def test_labels_in_the_order_of_their_numbers(root):
    names = {str(i): f"class {i}" for i in (2, 0, 1)}
    bert_directory.write(root, config={**bert_directory.CONFIG, "id2label": names})
    assert from_hf(root).labels == ("class 0", "class 1", "class 2")
    nameless = {k: v for k, v in bert_directory.CONFIG.items() if k != "id2label"}
    bert_directory.write(root, config=nameless)
    assert from_hf(root).labels == ()


def test_no_tokenizer(tmp_path):
    assert from_hf(bert_directory.write(tmp_path / "b", with_tokenizer=False)).assets == {}


def changed(**tensors):
    """The weights with some of them replaced, or left out for None."""
    weights = {**bert_directory.tensors(), **tensors}
    return {name: value for name, value in weights.items() if value is not None}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed(**{HEAD: None}), f"holds a backbone without {HEAD}: give a model that was fine-"),
        (changed(**{"classifier.bias": None}), r"missing classifier.bias \[3\]"),
        (changed(**{"bert.more": np.zeros((2, 2), "f")}), r"unexpected bert.more \[2, 2\]"),
        (
            changed(**{"bert.embeddings.word_embeddings.weight": np.zeros((5, 8), "f")}),
            r"word_embeddings.weight is \[5, 8\], expected \[14, 8\]",
        ),
        (
            changed(**{"bert.pooler.dense.weight": np.zeros((8, 9), "f")}),
            r"bert.pooler.dense.weight is \[8, 9\], expected \[8, 8\]",
        ),
        ({}, "holds a backbone without"),
    ],
)
def test_weights_that_do_not_fit(root, weights, message):
    bert_directory.write(root, weights)
    with pytest.raises(WeightsError, match=message) as raised:
        from_hf(root)
    assert str(root) in str(raised.value)


def test_all_that_differs_is_said_at_once(root):
    weights = changed(
        **{
            "classifier.bias": None,
            "bert.more": np.zeros(1, "f"),
            "bert.encoder.layer.0.output.dense.bias": np.zeros(7, "f"),
        }
    )
    bert_directory.write(root, weights)
    with pytest.raises(WeightsError) as raised:
        from_hf(root)
    text = str(raised.value)
    assert text.index("missing classifier.bias") < text.index("output.dense.bias is [7], expected")
    assert text.index("output.dense.bias is") < text.index("unexpected bert.more")
    assert text.endswith("Nothing loaded")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "no-such-type"}, "model_type is 'no-such-type' in .*, supported: .*bert"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_act": "sine"}, "hidden_act is 'sine', expected one of"),
        ({"num_attention_heads": 3}, "hidden_size 8 is no multiple of num_attention_heads 3"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"id2label": {"0": "no", "1": "yes"}}, r"2 (labels|classes)"),
    ],
)
def test_configurations_that_are_not_supported(root, config, message):
    bert_directory.write(root, config={**bert_directory.CONFIG, **config})
    with pytest.raises(ModelError, match=message):
        from_hf(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is no JSON"), ("[]", "holds a list, expected a JSON object"), ("\x00", "is no JSON")],
)
def test_configurations_that_are_none(root, content, message):
    (root / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        from_hf(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_len": 0}, "seq_len is 0, expected 1 to"),
        ({"seq_len": 17}, "seq_len is 17"),
        ({"pooling": "max"}, "pooling"),
        ({"num_labels": 5}, "5"),
        ({"nonsense": 1}, r"unknown settings \['nonsense'\], expected some of \["),
        ({"labels": ["only", "two"]}, "2 (labels|classes)"),
    ],
)
def test_settings_that_do_not_fit(root, changes, message):
    with pytest.raises(ModelError, match=message):
        from_hf(root, **changes)


def test_no_directory(tmp_path):
    with pytest.raises(ModelError, match=r"no model directory at .*absent: expected config\.json"):
        from_hf(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"config\.json|safetensors"):
        from_hf(tmp_path)
