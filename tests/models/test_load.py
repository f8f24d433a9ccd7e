"""What the user typed: a directory, a factory of their own, or a name of the zoo."""

import sys

import jax
import numpy as np
import pytest

from apparate_jax.core import InputSpec
from apparate_jax.errors import ModelError
from apparate_jax.models import from_factory, load_model, rebuild
from tests.models import bert_directory

FACTORIES = """
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from apparate_jax.core import InputSpec
from apparate_jax.errors import WeightsError
from apparate_jax.models import from_function

EXAMPLE = np.zeros((2, 4), np.float32)


def whole():
    params = np.ones((4, 3), np.float32)
    return from_function(lambda p, x: x @ p, params, inputs=[EXAMPLE], name="w")


def of_nnx():
    layers = nnx.Linear(4, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 3, rngs=nnx.Rngs(1))
    return nnx.Sequential(*layers), [EXAMPLE]


def of_linen():
    module = linen.Dense(3)
    return module, {"params": {"kernel": np.ones((4, 3)), "bias": np.zeros(3)}}, [
        InputSpec("features", (4,), "float32")
    ]


def refuses():
    raise WeightsError("download them first")


def breaks():
    return [][1]


def wants(size):
    return size


def text():
    return "model"


def half():
    return (nnx.Linear(4, 3, rngs=nnx.Rngs(0)),)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The user's module, in the working directory and nowhere else."""
    (tmp_path / "users_models.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in sys.path if p])
    yield "users_models"
    sys.modules.pop("users_models", None)


def test_a_directory(tmp_path):
    model = load_model(str(bert_directory.write(tmp_path / "b")), seq_len=9)
    assert model.name == "b" and model.inputs[0].shape == (9,)


def test_a_name_of_the_zoo():
    model = load_model("minilm-l6", classes=4, seq_len=8, num_hidden_layers=1, vocab_size=9)
    assert model.name == "minilm-l6" and model.source["config"]["num_labels"] == 4


@pytest.mark.parametrize(
    ("factory", "name"), [("whole", "w"), ("of_nnx", "Sequential"), ("of_linen", "Dense")]
)
def test_a_factory_from_the_working_directory(module, factory, name):
    model = load_model(f"{module}:{factory}")
    assert model.name == name
    assert model.source == {"kind": "python", "reference": f"{module}:{factory}"}
    inputs = model.example_inputs(5)
    assert jax.eval_shape(model.apply, model.params, *inputs).shape == (5, 3)
    again = rebuild(model.source, {})
    np.testing.assert_allclose(
        again.apply(again.params, *inputs), model.apply(model.params, *inputs), rtol=1e-6
    )


def test_descriptions_of_inputs_arrive(module):
    assert load_model(f"{module}:of_linen").inputs == (InputSpec("features", (4,), "float32"),)
    assert load_model(f"{module}:of_nnx").inputs[0].shape == (4,), "without the batch axis"


def test_a_directory_goes_before_the_zoo_and_a_factory(tmp_path, monkeypatch):
    bert_directory.write(tmp_path / "minilm-l6")
    bert_directory.write(tmp_path / "a:b")
    monkeypatch.chdir(tmp_path)
    assert load_model("minilm-l6").labels == ("negative", "neutral", "positive")
    assert load_model("a:b").name == "a:b"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("absent", "has no attribute 'absent'.: expected package.module:factory, importable"),
        ("EXAMPLE", "is a ndarray, expected a function"),
        ("text", r"returned \(str\), expected a Model, \(nnx module, inputs\)"),
        ("half", r"returned \(Linear\), expected"),
        ("breaks", r"failed with IndexError: list index out of range \(users_models.py:\d+\)"),
        ("wants", "failed with TypeError: .*missing 1 required positional argument"),
        ("refuses", "^download them first$"),
    ],
)
def test_factories_that_fail(module, factory, message):
    with pytest.raises(ModelError, match=message):
        from_factory(f"{module}:{factory}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def f(:", "invalid syntax"),
        ("1 / 0", "division by zero"),
    ],
)
def test_modules_that_fail(module, tmp_path, source, message):
    (tmp_path / "users_models.py").write_text(source)
    with pytest.raises(ModelError, match=f"cannot import '{module}:f' .{message}"):
        from_factory(f"{module}:f")


def test_settings_are_not_ignored(module):
    with pytest.raises(ModelError, match=r"\['classes', 'seq_len'\] cannot be set for the factory"):
        load_model(f"{module}:whole", seq_len=3, classes=2)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nosuch", "unknown model 'nosuch': expected a directory with config.json"),
        ("bert-bas", "did you mean 'bert-base'"),
        ("./nosuch", "no model directory at ./nosuch"),
        ("no.such.module:f", "cannot import 'no.such.module:f' .No module named 'no'"),
        (":f", "cannot import ':f'"),
        ("m:", "cannot import 'm:'"),
    ],
)
def test_references_that_lead_nowhere(reference, message):
    with pytest.raises(ModelError, match=message):
        load_model(reference)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "models of kind None cannot be made again: give a factory"),
        ({"kind": "pickle"}, "models of kind 'pickle' cannot be made again"),
        ({"kind": "bert"}, "configuration is of another version"),
        ({"kind": "bert", "config": {"wings": 2}}, "another version .*wings.*: inject it again"),
        ({"kind": "python", "reference": "no.such:f"}, "cannot import 'no.such:f'"),
    ],
)
def test_sources_that_cannot_be_made_again(source, message):
    with pytest.raises(ModelError, match=message):
        rebuild(source, {})
