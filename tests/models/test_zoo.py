"""The zoo: every name makes a model that can be cut, and a wrong name gets help."""

import jax
import numpy as np
import pytest

from apparate_jax.errors import ModelError
from apparate_jax.graph import trace
from apparate_jax.models import from_zoo, rebuild, zoo_names

SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 24,
    "intermediate_size": 32,
    "seq_len": 8,
    "vocab_size": 40,
}


def small(**changes):
    return from_zoo("minilm-l6", **{**SMALL, **changes})


def test_names_are_unique_and_typable():
    names = zoo_names()
    assert {"minilm-l6", "minilm-l12", "bert-base", "bert-large"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and " " not in name and ":" not in name for name in names)


def test_a_model_with_random_weights_says_so():
    model = small()
    assert model.name == "minilm-l6" and model.source["random_weights"] is True
    assert len(trace(model.apply, model.params, *model.example_inputs(2)).sites) >= 4
    logits = np.asarray(jax.jit(model.apply)(model.params, *model.example_inputs(3)))
    assert logits.shape == (3, 2) and np.isfinite(logits).all()


def test_settings_arrive():
    model = small(classes=5, seq_len=4)
    assert model.inputs[0].shape == (4,)
    logits = jax.eval_shape(model.apply, model.params, *model.example_inputs(3))
    assert logits.shape == (3, 5)


def test_the_seed_makes_the_weights():
    same, again, other = small(), small(), small(seed=1)
    for name, value in same.params.items():
        np.testing.assert_array_equal(value, again.params[name])
    kernels = [name for name in same.params if name.endswith("kernel")]
    assert kernels and all((same.params[k] != other.params[k]).any() for k in kernels)


def test_it_can_be_made_again_from_its_source():
    model = small(classes=5)
    again = rebuild(dict(model.source), {})
    assert jax.tree.map(np.shape, again.params) == jax.tree.map(np.shape, model.params)


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("minilm-l7", ("'minilm-l6'", "'minilm-l12'")),
        ("bert_base", ("'bert-base'",)),
        ("BERT-large", ("'bert-large'",)),
        ("zzz", ()),
    ],
)
def test_close_names_are_suggested(name, hints):
    with pytest.raises(ModelError) as raised:
        from_zoo(name)
    text = str(raised.value)
    assert text.startswith(f"unknown model {name!r}: ")
    assert ("did you mean" in text) is bool(hints)
    assert all(hint in text for hint in hints)
    assert all(known in text for known in zoo_names())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 1}, "num_labels is 1"),
        ({"classes": -3}, "num_labels is -3"),
        ({"depth": 3}, r"unknown settings \['depth'\], expected some of \["),
        ({"dtype": "float8"}, "float8"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(ModelError, match=message):
        small(**changes)
