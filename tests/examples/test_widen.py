"""Widening a BERT classifier: twice the sizes, the same answers."""

import math
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from apparate_jax.errors import ModelError
from apparate_jax.graph import trace
from apparate_jax.models.bert import BERT, BertConfig
from apparate_jax.models.distilbert import DISTILBERT, DistilBertConfig

SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 12,
    "seq_len": 8,
}


@pytest.fixture
def widen(example):
    return example("widen")


def small(family=BERT, **settings):
    """A model all of whose parameters are random: no bias is 0, no scale 1."""
    model = family.make(family.configure({**SIZES, "num_labels": 3, **settings}), 0)
    rng = np.random.default_rng(1)
    for path, value in model.params.items():
        model.params[path] = value + jnp.asarray(rng.normal(0, 0.1, value.shape), value.dtype)
    return model


def logits(model, inputs):
    return np.asarray(model.apply(model.params, *inputs))


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_the_wide_model_answers_the_same(widen, pooling):
    model = small(pooling=pooling)
    wide = widen.widen(model)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, SIZES["vocab_size"], (16, SIZES["seq_len"]), np.int32)
    mask = (np.arange(SIZES["seq_len"]) < rng.integers(1, 9, (16, 1))).astype(np.int32)
    expected = logits(model, (ids, mask))
    assert np.ptp(expected, axis=0).min() > 0.01
    np.testing.assert_allclose(logits(wide, (ids, mask)), expected, atol=1e-4)
    assert widen.difference(model, wide) < 1e-4


def test_what_is_not_halved_or_scaled_shows(widen):
    model = small()
    wide = widen.widen(model)
    for path in ("layers/0/attention/query/kernel", "layers/1/feed_forward/down/kernel"):
        params = {**wide.params, path: wide.params[path] * 2}
        wrong = type(wide)(**{f: getattr(wide, f) for f in wide.__slots__} | {"params": params})
        assert widen.difference(model, wrong) > 1e-3


def test_every_hidden_axis_is_twice_as_long(widen):
    model = small()
    wide = widen.widen(model)
    assert set(wide.params) == set(model.params)
    hidden = {SIZES["hidden_size"], SIZES["intermediate_size"]}
    for path, value in model.params.items():
        expected = tuple(2 * n if n in hidden else n for n in value.shape)
        assert wide.params[path].shape == expected, path
    assert wide.source["config"]["num_attention_heads"] == SIZES["num_attention_heads"]


def test_a_minilm_becomes_of_distilberts_size(widen):
    config = BERT.configure(BERT.zoo["minilm-l6"])
    wide, like = widen.wide_config(config), DistilBertConfig()
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        assert getattr(wide, name) == getattr(like, name)
    assert isinstance(wide, BertConfig)


def test_other_families_are_refused(widen):
    with pytest.raises(ModelError, match="family 'distilbert', and only 'bert'"):
        widen.widen(small(DISTILBERT))


def run(widen, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["widen.py", *map(str, words)])
    widen.main()


def test_the_command_writes_a_checkpoint_without_ramps(widen, monkeypatch, tmp_path, capsys):
    model = small()
    program = trace(model.apply, model.params, *model.example_inputs(2))
    save_checkpoint(tmp_path / "small", Checkpoint(model, program.sites))
    run(widen, monkeypatch, tmp_path / "small", "--out", tmp_path / "wide")
    made = load_checkpoint(tmp_path / "wide")
    assert made.ramps == () and len(made.sites) == len(program.sites)
    assert made.model.source["config"]["hidden_size"] == 2 * SIZES["hidden_size"]
    count = sum(math.prod(value.shape) for value in made.model.params.values())
    assert f"{count / 1e6:.1f} M parameters" in capsys.readouterr().out


def test_the_command_says_what_it_cannot_widen(widen, monkeypatch, tmp_path, capsys):
    model = small(DISTILBERT)
    program = trace(model.apply, model.params, *model.example_inputs(2))
    save_checkpoint(tmp_path / "other", Checkpoint(model, program.sites))
    with pytest.raises(SystemExit):
        run(widen, monkeypatch, tmp_path / "other", "--out", tmp_path / "wide")
    assert "only 'bert' can be widened" in capsys.readouterr().err
    assert not (tmp_path / "wide").exists()
