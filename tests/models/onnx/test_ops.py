"""Every operator against ONNX Runtime, over the opsets in which its attributes became inputs.

A case gives the op, its opset, attributes and inputs. It is run with all inputs as data, except
those that the op must know beforehand.
"""

from pathlib import Path

import numpy as np
import pytest

from apparate_jax.models.onnx import OPS
from apparate_jax.models.onnx.graph import Node
from tests.models.onnx import graphs
from tests.models.onnx.cases import CASES, ELSEWHERE, PAIRS, REDUCED, SHAPES, UNARY

DOCUMENT = Path(__file__).parents[3] / "docs" / "onnx.md"


def built(case):
    """The model of a case, its data, and the inputs that are known beforehand."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(case.inputs)]
    static = {
        names[i]: x for i, x in enumerate(case.inputs) if i in OPS[case.op].static and x is not None
    }
    data = {n: x for n, x in zip(names, case.inputs, strict=True) if n and n not in static}
    outs = [f"y{i}" for i in range(case.outputs)]
    proto = graphs.model(
        [graphs.helper.make_node(case.op, names, outs, **case.attributes)],
        [
            graphs.info(n, x.shape, graphs.helper.np_dtype_to_tensor_dtype(x.dtype))
            for n, x in data.items()
        ],
        [graphs.helper.make_empty_tensor_value_info(name) for name in outs],
        static,
        opset=case.opset,
    )
    if case.opset > 17:
        proto.ir_version = 10
    return proto, data


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_computes_what_onnx_runtime_computes(case):
    proto, data = built(case)
    ours, theirs = graphs.run_ours(proto, data), graphs.run_theirs(proto, data)
    for a, b in zip(ours, theirs, strict=True):
        graphs.assert_close(a, b, case.limit)


FOLDED = [*UNARY, *PAIRS, *SHAPES, *REDUCED]


@pytest.mark.parametrize("case", FOLDED, ids=str)
def test_values_that_are_known_beforehand_give_the_same(case):
    proto, data = built(case)
    theirs = graphs.run_theirs(proto, data)
    called = Node(case.op, case.op, "", case.opset, (), ("y",) * case.outputs, case.attributes)
    with np.errstate(all="ignore"):
        made = OPS[case.op].run(called, *case.inputs)
    for a, b in zip(made if isinstance(made, tuple) else (made,), theirs, strict=False):
        graphs.assert_close(np.asarray(a), b)


def test_shapes_are_computed_in_numpy():
    """At 64 bits, and without a tracer: what Reshape and Slice then know beforehand."""
    ops = "Shape Size Gather Concat Add Sub Mul Div Cast Squeeze Unsqueeze Slice Equal Where Expand"
    for case in CASES:
        if case.op in ops.split():
            called = Node(case.op, case.op, "", case.opset, (), ("y",), case.attributes)
            made = OPS[case.op].run(called, *case.inputs)
            assert isinstance(made, np.ndarray | np.generic), case


def test_every_operator_is_in_the_document():
    words = set(DOCUMENT.read_text(encoding="utf-8").replace("|", " ").split())
    assert not set(OPS) - words


def test_every_operator_has_a_case():
    assert set(OPS) - {case.op for case in CASES} == ELSEWHERE
