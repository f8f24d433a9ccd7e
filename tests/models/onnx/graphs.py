"""ONNX models that the tests write, and what ONNX Runtime and the importer say about them."""

import warnings

import jax
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from apparate_jax.models.onnx import import_graph
from apparate_jax.models.onnx.reader import parse_model, to_graph

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
IR_VERSION = 8


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(0, 0.7, shape).astype(np.float32)


def info(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, tensors=(), opset=17, **more):
    """A model of nodes; tensors are arrays by name."""
    initialisers = [
        numpy_helper.from_array(np.asarray(x), name) for name, x in dict(tensors).items()
    ]
    graph = helper.make_graph(nodes, "made", inputs, outputs, initialisers)
    opsets = [helper.make_opsetid("", opset), *more.pop("domains", ())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, **more)


def node(op, inputs, outputs, name="", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes)


def graph_of(proto):
    """The importer's graph of a model."""
    return to_graph(parse_model(proto.SerializeToString(), "made"), "made")


def run_ours(proto, feeds, outputs=None):
    """Outputs of the importer, compiled."""
    graph = graph_of(proto)
    imported = import_graph(graph, outputs or [value.name for value in graph.outputs])
    made = jax.jit(imported.apply)(imported.params, *(feeds[v.name] for v in imported.inputs))
    return [np.asarray(x) for x in made]


def run_theirs(proto, feeds, outputs=None):
    """Outputs of ONNX Runtime; a model of 2 GiB and more by its path."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    content = str(proto) if not hasattr(proto, "graph") else proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(outputs, feeds)


def assert_close(ours, theirs, limit=1e-4):
    """Equal up to a share of the largest value; whole numbers and truth values exactly."""
    assert ours.shape == theirs.shape
    if theirs.dtype.kind in "iub":
        np.testing.assert_array_equal(ours, theirs)
        return
    scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=limit, atol=limit * scale)


def quietly(fn, *args, **options):
    """Call what warns about itself (the onnx package's own test cases)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fn(*args, **options)


def conv_net(channels=3, size=8, classes=4, softmax=True, batch="batch"):
    """A small residual network in NCHW with a softmax."""
    nodes = [
        node("Conv", "image w1 b1", "c1", name="stem/Conv", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1", name="stem/Relu"),
        node("Conv", "r1 w2 b2", "c2", name="block/Conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c2 scale shift mean variance", "n2", name="block/Norm"),
        node("Add", "n2 r1", "a2", name="block/Add"),
        node("Relu", "a2", "r2", name="block/Relu"),
        node("GlobalAveragePool", "r2", "pooled", name="pool/Mean"),
        node("Flatten", "pooled", "flat", name="pool/Flatten"),
        node("Gemm", "flat w3 b3", "logits", name="head/Gemm", transB=1),
    ]
    if softmax:
        nodes.append(node("Softmax", "logits", "scores", name="head/Softmax", axis=1))
    tensors = {
        "w1": normal(1, 6, channels, 3, 3),
        "b1": normal(2, 6),
        "w2": normal(3, 6, 6, 3, 3) / 4,
        "b2": normal(4, 6),
        "scale": 1 + normal(5, 6) / 5,
        "shift": normal(6, 6),
        "mean": normal(7, 6),
        "variance": 1 + np.abs(normal(8, 6)),
        "w3": normal(9, classes, 6),
        "b3": normal(10, classes),
    }
    out = info("scores" if softmax else "logits", [batch, classes])
    return model(nodes, [info("image", [batch, channels, size, size])], [out], tensors)


def load(path):
    return onnx.load(str(path))
