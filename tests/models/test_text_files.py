import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models import from_hf, load_model
from tests.models.tiny_text import (
    CLASSES,
    CONFIGS,
    KINDS,
    SEQ_LEN,
    WIDTH,
    batch,
    logits,
    make,
    published,
    write,
)

PREFIX = {
    "bert": "bert.",
    "distilbert": "distilbert.",
    "roberta": "roberta.",
    "gpt2": "transformer.",
}
HEAD = {
    "bert": "classifier.weight",
    "distilbert": "classifier.weight",
    "roberta": "classifier.out_proj.weight",
    "gpt2": "score.weight",
}
# What the reference implementations write, by family: the head, what comes before the layers, and
# the first layer (weights with their shapes; biases have the width of the output).
_BERT = {
    "embeddings.word_embeddings.weight": [60, 32],
    "embeddings.token_type_embeddings.weight": [2, 32],
    "embeddings.position_embeddings.weight": [512, 32],
    "embeddings.LayerNorm.weight": [32],
    "encoder.layer.0.attention.self.query.weight": [32, 32],
    "encoder.layer.0.attention.self.key.weight": [32, 32],
    "encoder.layer.0.attention.self.value.weight": [32, 32],
    "encoder.layer.0.attention.output.dense.weight": [32, 32],
    "encoder.layer.0.attention.output.LayerNorm.weight": [32],
    "encoder.layer.0.intermediate.dense.weight": [48, 32],
    "encoder.layer.0.output.dense.weight": [32, 48],
    "encoder.layer.0.output.LayerNorm.weight": [32],
}
WRITTEN = {
    "bert": {f"bert.{k}": v for k, v in _BERT.items()}
    | {"bert.pooler.dense.weight": [32, 32], "classifier.weight": [3, 32]},
    "roberta": {f"roberta.{k}": v for k, v in _BERT.items()}
    | {
        "roberta.embeddings.token_type_embeddings.weight": [1, 32],
        "roberta.embeddings.position_embeddings.weight": [514, 32],
        "classifier.dense.weight": [32, 32],
        "classifier.out_proj.weight": [3, 32],
    },
    "distilbert": {
        "distilbert.embeddings.word_embeddings.weight": [60, 32],
        "distilbert.embeddings.position_embeddings.weight": [512, 32],
        "distilbert.embeddings.LayerNorm.weight": [32],
        "distilbert.transformer.layer.0.attention.q_lin.weight": [32, 32],
        "distilbert.transformer.layer.0.attention.k_lin.weight": [32, 32],
        "distilbert.transformer.layer.0.attention.v_lin.weight": [32, 32],
        "distilbert.transformer.layer.0.attention.out_lin.weight": [32, 32],
        "distilbert.transformer.layer.0.sa_layer_norm.weight": [32],
        "distilbert.transformer.layer.0.ffn.lin1.weight": [48, 32],
        "distilbert.transformer.layer.0.ffn.lin2.weight": [32, 48],
        "distilbert.transformer.layer.0.output_layer_norm.weight": [32],
        "pre_classifier.weight": [32, 32],
        "classifier.weight": [3, 32],
    },
    "gpt2": {
        "transformer.wte.weight": [60, 32],
        "transformer.wpe.weight": [1024, 32],
        "transformer.h.0.ln_1.weight": [32],
        "transformer.h.0.attn.c_attn.weight": [32, 96],
        "transformer.h.0.attn.c_proj.weight": [32, 32],
        "transformer.h.0.ln_2.weight": [32],
        "transformer.h.0.mlp.c_fc.weight": [32, 48],
        "transformer.h.0.mlp.c_proj.weight": [48, 32],
        "transformer.ln_f.weight": [32],
        "score.weight": [3, 32],
    },
}
WITHOUT_BIAS = ("transformer.wte.weight", "transformer.wpe.weight", "score.weight")


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return make(kind)


@pytest.fixture
def tensors(model):
    return published(model)


def load(root, **changes):
    return from_hf(root, seq_len=SEQ_LEN, **changes)


def same(found, expected):
    """Both answer alike, to the bit."""
    assert set(found.params) == set(expected.params)
    np.testing.assert_array_equal(logits(found, batch()), logits(expected, batch()))


def test_tensors_are_those_that_the_reference_writes(kind, tensors):
    first = {
        n: list(v.shape) for n, v in tensors.items() if n.endswith("weight") and ".1." not in n
    }
    assert first == WRITTEN[kind]
    for name in first:
        has_bias = "embeddings.weight" not in name and name not in WITHOUT_BIAS
        assert (name.replace("weight", "bias") in tensors) == has_bias, name


@pytest.mark.parametrize("shards", [1, 4])
def test_round_trip(kind, model, tensors, shards, tmp_path):
    found = load(write(tmp_path / "mine", kind, tensors, shards=shards))
    same(found, model)
    assert found.name == "mine" and "random_weights" not in found.source
    assert found.source["config"] == model.source["config"]


def test_older_names_a_missing_prefix_and_other_heads(kind, model, tensors, tmp_path):
    older = {
        name.removeprefix(PREFIX[kind])
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    others = {
        "bert": {"cls.predictions.bias": 60, "embeddings.position_ids": 512},
        "roberta": {"lm_head.bias": 60, "pooler.dense.bias": 32, "embeddings.position_ids": 514},
        "distilbert": {"vocab_projector.bias": 60, "vocab_transform.bias": 32},
        "gpt2": {"lm_head.weight": 60, "h.0.attn.bias": 9, "h.0.attn.masked_bias": 1},
    }[kind]
    older |= {name: np.zeros(size, np.float32) for name, size in others.items()}
    same(load(write(tmp_path, kind, older)), model)


def test_all_that_differs_is_listed(kind, tensors, tmp_path):
    names = list(tensors)
    del tensors[names[0]]
    tensors[names[3]] = np.zeros((2, 7), np.float32)
    tensors[f"{PREFIX[kind]}extra.weight"] = np.zeros((1, 2), np.float32)
    with pytest.raises(WeightsError) as error:
        load(write(tmp_path, kind, tensors))
    message = str(error.value)
    assert f"missing {names[0]} [" in message
    assert f"{names[3]} is [2, 7], expected" in message
    assert f"unexpected {PREFIX[kind]}extra.weight [1, 2]" in message
    assert message.endswith("Nothing loaded")


def test_a_backbone_alone_is_no_classifier(kind, tensors, tmp_path):
    del tensors[HEAD[kind]]
    with pytest.raises(WeightsError, match=f"a backbone without {HEAD[kind]}: give a model"):
        load(write(tmp_path, kind, tensors))


def test_classes_that_agree_or_contradict(kind, model, tensors, tmp_path):
    root = str(write(tmp_path, kind, tensors))
    same(load_model(root, classes=CLASSES, seq_len=SEQ_LEN), model)
    with pytest.raises(ModelError, match=rf"4 labels were asked.*{HEAD[kind]}.*has 3 rows.*--cl"):
        load_model(root, classes=4)


def test_half_precision(kind, model, tensors, tmp_path):
    found = load(write(tmp_path, kind, tensors), dtype="bfloat16")
    assert {p.dtype.name for p in found.params.values()} == {"bfloat16"}
    for path, value in found.params.items():
        np.testing.assert_array_equal(value, model.params[path].astype("bfloat16"))


@pytest.fixture(scope="module")
def one():
    """The smallest of all, for what is the same for every family."""
    model = make("distilbert", num_hidden_layers=1)
    return published(model)


def small(root, one, **fields):
    return write(root, "distilbert", one, n_layers=1, **fields)


ID2LABEL = {"1": "bad", "0": "good", "2": "ugly"}


def test_names_of_classes(one, tmp_path):
    root = small(tmp_path, one, id2label=ID2LABEL, problem_type="single_label_classification")
    assert load(root).labels == ("good", "bad", "ugly")
    assert load(root, labels=["a", "b", "c"]).labels == ("a", "b", "c")
    assert load(small(tmp_path, one)).labels == ()
    assert load(small(tmp_path, one, num_labels=3)).labels == ()


def test_names_of_another_task_do_not_count_when_classes_are_asked_for(one, tmp_path):
    root = small(tmp_path, one, id2label={"0": "no", "1": "yes"}, num_labels=2)
    with pytest.raises(ModelError, match="2 labels were asked for or configured"):
        load(root)
    assert load(root, classes=3).labels == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id2label": ID2LABEL, "num_labels": 2}, "num_labels 2 and names 3 classes"),
        ({"id2label": ID2LABEL, "_num_labels": 5}, "num_labels 5 and names 3 classes"),
        ({"num_labels": 2}, "2 labels were asked for or configured.*has 3 rows"),
        ({"id2label": {"0": "a", "2": "b"}}, r"numbers \[0, 2\], expected 0, 1"),
        ({"id2label": {"a": "0"}}, "does not number classes"),
        ({"id2label": ["a", "b", "c"]}, "does not number classes"),
        ({"problem_type": "regression"}, "problem_type is 'regression'"),
        ({"problem_type": "multi_label_classification"}, "one class of several"),
    ],
)
def test_classes_that_contradict_each_other(one, fields, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        load(small(tmp_path, one, **fields))


def test_labels_must_be_one_a_class(one, tmp_path):
    with pytest.raises(ModelError, match=r"2 labels.*for the 3 classes"):
        load(small(tmp_path, one), labels=["a", "b"], num_labels=3)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "supported: 'absolute'"),
        ("roberta", {"is_decoder": True}, "is_decoder is True in config.json, supported: False"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "supported: False"),
        ("gpt2", {"activation_function": "mish"}, "hidden_act is 'mish'"),
    ],
)
def test_what_is_not_built_is_refused(kind, fields, message, tmp_path):
    tensors = {HEAD[kind]: np.zeros((2, 32), np.float32)}
    with pytest.raises(ModelError, match=message):
        from_hf(write(tmp_path, kind, tensors, **fields))


def test_lengths_follow_the_positions_that_there_are(tmp_path):
    tensors = published(make("roberta", max_position_embeddings=SEQ_LEN + 3, pad_token_id=2))
    root = write(tmp_path, "roberta", tensors, max_position_embeddings=SEQ_LEN + 3, pad_token_id=2)
    assert from_hf(root).inputs[0].shape == (SEQ_LEN,)


def test_gpt2_has_four_times_its_width_inside_unless_told(tmp_path):
    tensors = published(make("gpt2", intermediate_size=4 * WIDTH))
    found = load(write(tmp_path, "gpt2", tensors, n_inner=None))
    assert found.params["layers/0/feed_forward/up/kernel"].shape == (WIDTH, 4 * WIDTH)


def test_adapter_on_weights_that_are_stored_the_other_way(tmp_path):
    """GPT-2's layers are ``[in, out]``: the low-rank update is turned."""
    tensors = published(make("gpt2"))
    base = write(tmp_path / "base", "gpt2", tensors)
    module, rng = "transformer.h.0.attn.c_attn", np.random.default_rng(5)
    down = rng.normal(size=(2, WIDTH)).astype(np.float32)
    up = rng.normal(size=(3 * WIDTH, 2)).astype(np.float32)
    head = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    described = {"base_model_name_or_path": str(base), "r": 2, "lora_alpha": 6}
    name = f"base_model.model.{module}"
    updates = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(
        {**updates, "base_model.model.score.weight": head}, adapter / "adapter_model.safetensors"
    )

    (adapter / "adapter_config.json").write_text(json.dumps({**described, "fan_in_fan_out": True}))
    merged = {**tensors, "score.weight": head}
    merged[f"{module}.weight"] = tensors[f"{module}.weight"] + 3.0 * (up @ down).T
    expected = load(write(tmp_path / "merged", "gpt2", merged))
    np.testing.assert_allclose(
        logits(load(adapter), batch()), logits(expected, batch()), rtol=1e-5, atol=1e-6
    )
    (adapter / "adapter_config.json").write_text(json.dumps(described))
    with pytest.raises(WeightsError, match=r"expected \[32, 2\] x \[2, 96\]"):
        load(adapter)


def test_every_family_is_found_by_its_model_type():
    assert set(CONFIGS) == set(KINDS)
    assert {config["model_type"] for config in CONFIGS.values()} == set(KINDS)
