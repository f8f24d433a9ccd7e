"""LoRA adapters: the merged weight is W + (alpha / r) B A, and nothing is half-merged."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models import adapter, from_hf
from tests.models import bert_directory

QUERY = "bert.encoder.layer.0.attention.self.query"
UP = "bert.encoder.layer.1.intermediate.dense"
RANK, ALPHA = 2, 6.0
WIDTH, WIDER = 8, 12


def updates(seed=4):
    """An update of a square and of an oblong weight, and a classifier that is saved whole."""
    rng = np.random.default_rng(seed)
    shapes = {
        f"{QUERY}.lora_A.weight": (RANK, WIDTH),
        f"{QUERY}.lora_B.weight": (WIDTH, RANK),
        f"{UP}.lora_A.weight": (RANK, WIDTH),
        f"{UP}.lora_B.weight": (WIDER, RANK),
        "classifier.weight": (3, WIDTH),
        "classifier.bias": (3,),
    }
    return {
        f"base_model.model.{name}": rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def write(root, weights=None, **config):
    root.mkdir(exist_ok=True)
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": "../base",
        "r": RANK,
        "lora_alpha": ALPHA,
    }
    content = {k: v for k, v in {**settings, **config}.items() if v is not None}
    (root / "adapter_config.json").write_text(json.dumps(content))
    save_file(updates() if weights is None else weights, root / "adapter_model.safetensors")
    return root


@pytest.fixture
def base(tmp_path):
    return bert_directory.write(tmp_path / "base")


@pytest.fixture
def root(tmp_path, base):
    return write(tmp_path / "mine")


def expected(weights, given):
    """The definition, in float64."""
    merged = {name: value.astype(np.float64) for name, value in weights.items()}
    for module in (QUERY, UP):
        down = given[f"base_model.model.{module}.lora_A.weight"].astype(np.float64)
        up = given[f"base_model.model.{module}.lora_B.weight"].astype(np.float64)
        merged[f"{module}.weight"] += ALPHA / RANK * (up @ down)
    for name in ("classifier.weight", "classifier.bias"):
        merged[name] = given[f"base_model.model.{name}"].astype(np.float64)
    return merged


def test_the_merged_weights_are_the_definition(root):
    weights = bert_directory.tensors()
    merged = adapter.merge(
        {n: jnp.asarray(v) for n, v in weights.items()}, root, adapter.read_config(root)
    )
    wanted = expected(weights, updates())
    assert sorted(merged) == sorted(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(merged[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
        if name not in {f"{QUERY}.weight", f"{UP}.weight", "classifier.weight", "classifier.bias"}:
            np.testing.assert_array_equal(merged[name], weights[name])
    assert np.abs(wanted[f"{UP}.weight"] - weights[f"{UP}.weight"]).max() > 1


def test_a_half_precision_base_keeps_its_type(root):
    weights = {n: jnp.asarray(v, jnp.bfloat16) for n, v in bert_directory.tensors().items()}
    merged = adapter.merge(weights, root, adapter.read_config(root))
    assert merged[f"{QUERY}.weight"].dtype == jnp.bfloat16
    wanted = expected({n: np.asarray(v, np.float32) for n, v in weights.items()}, updates())
    found = np.asarray(merged[f"{QUERY}.weight"], np.float32)
    # Summed in float32 and rounded once.
    np.testing.assert_allclose(found, wanted[f"{QUERY}.weight"], rtol=2**-8)


def test_a_model_with_an_adapter_answers_as_the_merged_one(root, tmp_path):
    merged = expected(bert_directory.tensors(), updates())
    whole = bert_directory.write(
        tmp_path / "whole", {n: v.astype(np.float32) for n, v in merged.items()}
    )
    one, other = from_hf(root), from_hf(whole)
    inputs = one.example_inputs(4)
    logits = jax.jit(one.apply)(one.params, *inputs)
    np.testing.assert_allclose(
        logits, jax.jit(other.apply)(other.params, *inputs), rtol=1e-4, atol=1e-5
    )
    assert one.name == "mine" and one.labels == ("negative", "neutral", "positive")
    plain = from_hf(root.parent / "base")
    assert np.abs(logits - plain.apply(plain.params, *inputs)).max() > 0.1
    assert one.assets == plain.assets, "the base's tokenizer"


def test_what_its_own_config_says_goes_first(root):
    own = {"apparate": {"pooling": "mean", "seq_len": 5, "labels": ["a", "b", "c"]}}
    (root / "config.json").write_text(json.dumps(own))
    model = from_hf(root)
    assert model.pooling == "mean" and model.labels == ("a", "b", "c")
    assert model.inputs[0].shape == (5,)
    assert from_hf(root, seq_len=6).inputs[0].shape == (6,)


def test_where_the_base_is(root, base, tmp_path):
    config = adapter.AdapterConfig("../base", RANK, ALPHA)
    assert adapter.find_base(config, root, None).resolve() == base
    elsewhere = bert_directory.write(tmp_path / "elsewhere")
    assert adapter.find_base(config, root, elsewhere) == elsewhere
    absolute = adapter.AdapterConfig(str(base), RANK, ALPHA)
    assert adapter.find_base(absolute, root, None) == base
    with pytest.raises(ModelError, match="is no model directory: config"):
        adapter.find_base(config, root, tmp_path)
    for name in ("no-such-package", "../../etc", "numpy"):
        nowhere = adapter.AdapterConfig(name, RANK, ALPHA)
        with pytest.raises(ModelError, match=f"needs its base model '{name}': install the package"):
            adapter.find_base(nowhere, root, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{QUERY}.lora_B.weight": None}, f"an update of '{QUERY}', but lora_B is missing"),
        ({f"{QUERY}.lora_A.weight": None}, f"an update of '{QUERY}', but lora_A is missing"),
        ({f"{QUERY}.lora_A.weight": (3, 8)}, r"is \[8, 2\] x \[3, 8\], expected \[8, 2\] x \[2, 8"),
        ({f"{UP}.lora_B.weight": (8, 2)}, r"is \[8, 2\] x \[2, 8\], expected \[12, 2\]"),
        (
            {"bert.pool.lora_A.weight": (2, 8), "bert.pool.lora_B.weight": (8, 2)},
            "an update of 'bert.pool', but the base has no such weight",
        ),
        ({"classifier.weight": (3, 7)}, r"classifier.weight is \[3, 7\], expected \[3, 8\]"),
        ({"bert.extra.weight": (2,)}, r"unexpected bert.extra.weight \[2\]"),
    ],
)
def test_updates_that_do_not_fit(root, change, message):
    weights = updates()
    for name, shape in change.items():
        full = f"base_model.model.{name}"
        weights.pop(full, None)
        if shape is not None:
            weights[full] = np.zeros(shape, np.float32)
    write(root, weights)
    with pytest.raises(WeightsError, match=f"{message}.*Nothing loaded"):
        from_hf(root)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', supported: 'LORA'"),
        ({"r": None}, "is no adapter configuration .*expected base_model_name_or_path, r and"),
        ({"lora_alpha": "much"}, "is no adapter configuration"),
        ({"r": 0}, "r is 0, expected at least 1"),
        ({"base_model_name_or_path": None}, "is no adapter configuration"),
    ],
)
def test_configurations_that_are_none(root, config, message):
    write(root, **config)
    with pytest.raises(ModelError, match=message):
        from_hf(root)


@pytest.mark.parametrize("content", ["", "[]", "{", '"LORA"'])
def test_a_configuration_of_something_else(root, content):
    (root / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match="is no adapter configuration"):
        from_hf(root)


def test_no_weights(root):
    (root / "adapter_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no weights at .*adapter_model\.safetensors"):
        from_hf(root)
