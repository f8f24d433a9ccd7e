"""ONNX's own test cases of every operator in the tables, at the newest opset.

The onnx package makes the cases and their expected outputs itself. A case is run as a model is:
inputs that the operator must know beforehand are tensors of the graph, the rest is data. Variants
that are refused must be refused by name.
"""

from collections import defaultdict
from dataclasses import replace

import jax
import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from apparate_jax.errors import ModelError
from apparate_jax.models.onnx import OPS, import_graph
from apparate_jax.models.onnx.importer import KNOWN, check_ops, static_names
from apparate_jax.models.onnx.reader import expand_functions, parse_model, to_graph
from tests.models.onnx import graphs

pytestmark = pytest.mark.slow

LIMITS = {"bfloat16": 2e-2, "float16": 2e-3}
NUMBERS = {"bool", "float16", "bfloat16", "float32", "float64"} | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
OTHERWISE = {
    "test_not_2d": "of opset 1",
    "test_not_3d": "of opset 1",
    "test_not_4d": "of opset 1",
    "test_resize_downsample_scales_linear_align_corners": "sizes are whole, as ONNX Runtime has it",
    "test_resize_downsample_scales_cubic_align_corners": "sizes are whole, as ONNX Runtime has it",
}
REFUSED = ("not supported", "training mode", "depends on the data")
FUNCTIONS = ("Attention", "RotaryEmbedding", "SwiGLU", "MeanVarianceNormalization", "CenterCropPad")
"""Operators that ONNX defines by others, which stand in for them."""


def numbers(values):
    return [numpy_helper.to_array(x) if isinstance(x, TensorProto) else x for x in values]


@pytest.fixture(scope="module")
def cases():
    found = defaultdict(list)
    for case in graphs.quietly(load_model_tests, kind="node"):
        ops = {node.op_type for node in case.model.graph.node}
        if len(ops) == 1 and case.name not in OTHERWISE:
            found[ops.pop()].append(case)
    return found


def usable(case):
    """Whether the data are numbers that JAX has, not texts, 4-bit integers or 8-bit floats."""
    values = [x for pair in case.data_sets for part in pair for x in numbers(part)]
    return all(isinstance(x, np.ndarray | np.generic) and x.dtype.name in NUMBERS for x in values)


def run(case):
    proto = graphs.quietly(expand_functions, case.model, KNOWN)
    graph = to_graph(parse_model(proto.SerializeToString(), case.name), case.name)
    check_ops(graph.nodes)
    fixed = static_names(graph.nodes)
    for inputs, outputs in case.data_sets:
        names = [value.name for value in case.model.graph.input]
        data = dict(zip(names, map(np.asarray, numbers(inputs)), strict=True))
        tensors = {**graph.tensors, **{name: x for name, x in data.items() if name in fixed}}
        left = tuple(value for value in graph.inputs if value.name not in fixed)
        whole = replace(graph, tensors=tensors, inputs=left)
        imported = import_graph(whole, [value.name for value in graph.outputs])
        made = jax.jit(imported.apply)(imported.params, *(data[v.name] for v in imported.inputs))
        for ours, theirs in zip(made, numbers(outputs), strict=True):
            compare(np.asarray(ours), np.asarray(theirs))


def compare(ours, theirs):
    limit = LIMITS.get(theirs.dtype.name, 1e-4)
    if theirs.dtype.name in ("bfloat16", "float16"):
        ours, theirs = ours.astype(np.float32), theirs.astype(np.float32)
    graphs.assert_close(ours, theirs, limit)


@pytest.mark.parametrize("op", [*sorted(OPS), *FUNCTIONS])
def test_cases_of_onnx_itself(cases, op):
    if op == "Scatter":
        pytest.skip("ONNX has cases of its successor only, ScatterElements")
    chosen = [case for case in cases[op] if usable(case)]
    passed = 0
    for case in chosen:
        try:
            run(case)
            passed += 1
        except ModelError as error:
            assert any(words in str(error) for words in REFUSED), case.name
        except AssertionError as error:
            raise AssertionError(f"{case.name}: {error}") from error
    assert passed or op == "Not", [case.name for case in cases[op]]
