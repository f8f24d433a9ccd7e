"""The real topologies that the onnx package carries, with random weights, against ONNX Runtime.

In the files every weight is filled with one constant, which would hide most mistakes: here the
filled tensors are random, scaled by their fan-in, and logits are compared, not the softmax.
"""

import math
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from apparate_jax.graph import trace
from apparate_jax.models.onnx import from_onnx
from tests.models.onnx import graphs

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
QUICK = ("squeezenet",)
SLOW = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "vgg19",
    "zfnet512",
)
SITES = {
    "bvlc_alexnet": 7,
    "densenet121": 51,
    "inception_v1": 12,
    "inception_v2": 13,
    "resnet50": 17,
    "shufflenet": 17,
    "squeezenet": 17,
    "vgg19": 16,
    "zfnet512": 6,
}


def randomised(name):
    """The model with random tensors where it fills them with a constant."""
    proto = onnx.load(LIGHT / f"light_{name}.onnx")
    shapes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    statistics = {n.input[4] for n in proto.graph.node if n.op_type == "BatchNormalization"}
    rng = np.random.default_rng(0)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        if node.op_type != "ConstantOfShape":
            proto.graph.node.append(node)
            continue
        shape = shapes[node.input[0]]
        deviation = math.sqrt(2 / max(int(np.prod(shape[1:])), 1)) if len(shape) > 1 else 0.1
        values = deviation * rng.standard_normal(shape, np.float32)
        if len(shape) == 1:
            values = 1 + np.abs(values) if node.output[0] in statistics else values + 0.5
        proto.graph.initializer.append(
            numpy_helper.from_array(values.astype(np.float32), node.output[0])
        )
    return proto


def logits_of(proto, name):
    """The value before the softmax, as an output."""
    proto.graph.output.append(graphs.helper.make_empty_tensor_value_info(name))


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_a_light_topology(tmp_path, name):
    proto = randomised(name)
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    model = from_onnx(path)
    made_by = {n.output[0]: n for n in proto.graph.node}
    last = made_by[model.source["output"]]
    before = last.input[0] if last.op_type == "Softmax" else last.output[0]
    assert ("note" in model.source) == (last.op_type == "Softmax")
    if before != model.source["output"]:
        logits_of(proto, before)
    (spec,) = model.inputs
    assert spec.shape == (3, 224, 224) and model.channels == "first"
    images = graphs.normal(1, 2, *spec.shape)
    compiled = jax.jit(model.apply)
    theirs = graphs.run_theirs(proto, {spec.name: images[:1]}, [before])[0].reshape(1, -1)
    assert np.ptp(theirs) > 1e-3
    # The graph is for one example: the second is computed as the first.
    ours = np.asarray(compiled(model.params, images))
    graphs.assert_close(ours[:1], theirs)
    program = trace(model.apply, model.params, *model.example_inputs(2))
    assert len(program.sites) == SITES[name]
    carry = None
    for stage in program.split([len(program.sites) // 2]):
        carry = stage(carry, images)
    np.testing.assert_array_equal(carry, ours)
