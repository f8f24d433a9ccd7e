"""The demo's real model on real reviews: accuracy, sites, exact stages, ramps that agree."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from apparate_jax.control import oracle_saving, tune_thresholds
from apparate_jax.data import ArrayDataset
from apparate_jax.data.text import TextEncoder
from apparate_jax.graph import trace
from apparate_jax.models import from_hf
from apparate_jax.ramps import TrainConfig, train_ramps

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def imdb():
    spec = importlib.util.spec_from_file_location("imdb", ROOT / "examples" / "imdb.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    return from_hf(ROOT / "checkpoints" / "minilm-l6-imdb")


def _inputs(model, texts):
    encoded = TextEncoder(model)(texts)
    return tuple(encoded[spec.name] for spec in model.inputs)


def test_it_is_as_accurate_as_its_card_says(model, imdb):
    texts, labels = imdb.read("heldout")
    inputs = _inputs(model, texts[:400])
    apply = jax.jit(model.apply)
    logits = np.concatenate(
        [apply(model.params, *(x[i : i + 50] for x in inputs)) for i in range(0, 400, 50)]
    )
    accuracy = (logits.argmax(1) == labels[:400]).mean()
    assert accuracy == pytest.approx(0.85, abs=0.05)
    assert model.labels == ("negative", "positive")


def test_two_sites_a_layer_and_every_cut_is_exact(model, imdb):
    texts, _ = imdb.read("stream")
    inputs = tuple(x[:4] for x in _inputs(model, texts[:4]))
    program = trace(model.apply, model.params, *inputs)
    assert len(program.sites) == 12
    assert program.sites[0].name == "layer_0/attention"
    expected = np.asarray(jax.jit(model.apply)(model.params, *inputs))
    for site in range(12):
        first, last = program.split([site])
        value = np.asarray(last(first(None, *inputs), *inputs))
        np.testing.assert_array_equal(value, expected)


def test_ramps_learn_the_models_answers_and_deeper_ones_agree_more(model, imdb):
    texts, _ = imdb.read("ramps")
    inputs = _inputs(model, texts[:600])
    program = trace(model.apply, model.params, *(x[:8] for x in inputs))
    trained = train_ramps(
        program, model, ArrayDataset("reviews", tuple(inputs)), TrainConfig(data_frac=1.0)
    )
    agreement = [ramp.agreement for ramp in trained.ramps]
    assert min(agreement) > 0.6
    assert agreement[-1] > 0.97
    assert np.mean(agreement[6:]) > np.mean(agreement[:6]) + 0.05
    columns = [2, 6]
    validation = trained.validation
    savings = [1 - program.sites[s].depth for s in columns]
    tuned = tune_thresholds(
        validation.errors[:, columns], validation.agrees[:, columns], savings, 0.01
    )
    assert 0.1 < tuned.saving < oracle_saving(validation.agrees[:, columns], savings)


def test_the_parts_of_the_reviews_do_not_overlap(imdb):
    parts = {name: set(imdb.read(name)[0]) for name in imdb.PARTS}
    names = list(parts)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert len(parts[one] & parts[other]) <= 60, (one, other)  # reviews that stand twice
