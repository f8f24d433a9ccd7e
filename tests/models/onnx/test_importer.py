"""Graphs of several nodes: what is folded, what becomes a parameter, any batch size, branches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from onnx import helper

from apparate_jax.errors import ModelError
from apparate_jax.graph import trace
from apparate_jax.models.onnx import import_graph
from apparate_jax.models.onnx.importer import KNOWN
from apparate_jax.models.onnx.reader import expand_functions, parse_model, to_graph
from tests.models.onnx import graphs
from tests.models.onnx.graphs import INT64, info, node, normal


def ints(*values):
    return np.asarray(values, np.int64)


def scalar(value):
    return np.asarray(value, np.int64)


def imported(proto, *outputs):
    graph = graphs.graph_of(proto)
    return import_graph(graph, outputs or [value.name for value in graph.outputs])


def heads_net(batch, time):
    """What a transformer does with shapes: heads from Shape, Gather, Concat and Reshape."""
    return graphs.model(
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape zero", "b"),
            node("Gather", "shape one", "t"),
            node("Unsqueeze", "b first", "b1"),
            node("Unsqueeze", "t first", "t1"),
            node("Concat", "b1 t1 heads", "split", axis=0),
            node("MatMul", "x w", "q"),
            node("Reshape", "q split", "parts"),
            node("Transpose", "parts", "turned", perm=[0, 2, 1, 3]),
            node("ReduceMean", "turned", "mean", axes=[2], keepdims=0),
            node("Reshape", "mean flat", "y"),
        ],
        [info("x", [batch, time, 8])],
        [info("y", [batch, 8])],
        {
            "zero": scalar(0),
            "one": scalar(1),
            "first": ints(0),
            "heads": ints(2, 4),
            "flat": ints(0, -1),
            "w": normal(1, 8, 8),
        },
    )


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_shapes_are_folded_at_any_batch_size(batch):
    proto = heads_net("batch", "time")
    x = normal(2, batch, 6, 8)
    graphs.assert_close(graphs.run_ours(proto, {"x": x})[0], graphs.run_theirs(proto, {"x": x})[0])
    made = imported(proto)
    text = str(jax.make_jaxpr(made.apply)({"w": jnp.zeros((8, 8))}, x))
    assert "gather" not in text and "concatenate" not in text and "i32" not in text


def fixed_net():
    """Exported for one example: the batch is written into shapes and into a class token."""
    return graphs.model(
        [
            node("Reshape", "image to_patches", "patches"),
            node("MatMul", "patches w", "embedded"),
            node("Concat", "token embedded", "tokens", axis=1),
            node("Add", "tokens positions", "placed"),
            node("Relu", "placed", "hidden"),
            node("Reshape", "hidden to_row", "row"),
            node("Gemm", "row head", "y"),
        ],
        [info("image", [1, 3, 4, 4])],
        [info("y", [1, 5])],
        {
            "to_patches": ints(1, 4, 12),
            "w": normal(1, 12, 6),
            "token": normal(2, 1, 1, 6),
            "positions": normal(3, 1, 5, 6),
            "to_row": ints(1, -1),
            "head": normal(4, 30, 5),
        },
    )


def test_a_graph_for_one_example_runs_at_other_batch_sizes():
    proto = fixed_net()
    images = normal(5, 3, 3, 4, 4)
    (ours,) = graphs.run_ours(proto, {"image": images})
    each = [graphs.run_theirs(proto, {"image": images[i : i + 1]})[0] for i in range(3)]
    graphs.assert_close(ours, np.concatenate(each))
    assert imported(proto).batch == 1


def heads_for_one():
    """Attention heads folded into the batch, with shapes of one example."""
    return graphs.model(
        [
            node("Reshape", "x split", "parts"),
            node("Transpose", "parts", "turned", perm=[0, 2, 1, 3]),
            node("Reshape", "turned fold", "folded"),
            node("MatMul", "folded w", "mixed"),
            node("Reshape", "mixed unfold", "heads"),
            node("ReduceMean", "heads", "y", axes=[1, 2], keepdims=0),
        ],
        [info("x", [1, 6, 8])],
        [info("y", [1, 4])],
        {
            "split": ints(1, 6, 2, 4),
            "fold": ints(2, 6, 4),
            "w": normal(1, 4, 4),
            "unfold": ints(1, 2, 6, 4),
        },
    )


def test_heads_that_are_folded_into_the_batch():
    x = normal(2, 3, 6, 8)
    (ours,) = graphs.run_ours(heads_for_one(), {"x": x})
    each = [graphs.run_theirs(heads_for_one(), {"x": x[i : i + 1]})[0] for i in range(3)]
    graphs.assert_close(ours, np.concatenate(each))


def test_a_shape_that_no_batch_size_explains():
    proto = fixed_net()
    proto.graph.node[1].input[1] = "to_patches"
    with pytest.raises(
        ModelError, match=r"MatMul \(node 'embedded', opset 17\) does not take its inp"
    ):
        graphs.run_ours(proto, {"image": normal(5, 3, 3, 4, 4)})


def test_parameters_are_float_tensors_and_large_ones():
    rows = np.arange(2000, dtype=np.int64)
    proto = graphs.model(
        [
            node("Gather", "rows x", "row"),
            node("Gather", "table row", "value"),
            node("Mul", "value two", "doubled"),
            node("Constant", "", "shift", value=helper.make_tensor("", 1, [3], [1.0, 2.0, 3.0])),
            node("Add", "doubled shift", "shifted"),
            node("ConstantOfShape", "wide", "filled", value=helper.make_tensor("", 1, [1], [0.5])),
            node("MatMul", "shifted filled", "wider"),
            node("Reshape", "wider shape", "y"),
        ],
        [info("x", ["batch"], INT64)],
        [info("y", ["batch", 4])],
        {
            "rows": rows[::-1].copy(),
            "table": normal(1, 2000, 3),
            "two": np.float32(2),
            "wide": ints(3, 4),
            "shape": ints(-1, 4),
            "unused": normal(2, 5),
        },
    )
    made = imported(proto)
    assert {name: x.shape for name, x in made.params.items()} == {
        "rows": (2000,),
        "table": (2000, 3),
        "shift": (3,),
        "filled": (3, 4),
    }
    assert set(made.constants) == {"two", "shape", "wide"}
    x = ints(3, 1999)
    graphs.assert_close(graphs.run_ours(proto, {"x": x})[0], graphs.run_theirs(proto, {"x": x})[0])


def test_float_tensors_that_must_be_known_are_constants():
    proto = graphs.model(
        [node("Identity", "scales", "same"), node("Resize", "x  same", "y")],
        [info("x", [1, 2, 3, 3])],
        [info("y", [1, 2, 6, 6])],
        {"scales": np.asarray([1, 1, 2, 2], np.float32)},
    )
    del proto.graph.node[1].input[:]
    proto.graph.node[1].input.extend(["x", "", "same"])
    made = imported(proto)
    assert not made.params and set(made.constants) == {"scales"}
    x = normal(1, 1, 2, 3, 3)
    graphs.assert_close(graphs.run_ours(proto, {"x": x})[0], graphs.run_theirs(proto, {"x": x})[0])


def branching(condition):
    """Squeezes the last axis away if it is 1, as exporters write it."""

    def branch(op, *inputs):
        return helper.make_graph([helper.make_node(op, inputs, [op])], op, [], [info(op, None)])

    return graphs.model(
        [
            node("MatMul", "x w", "wide"),
            *condition,
            helper.make_node(
                "If",
                ["is_one"],
                ["y"],
                then_branch=branch("Squeeze", "wide", "last"),
                else_branch=branch("Identity", "wide"),
            ),
        ],
        [info("x", ["batch", 3])],
        [info("y", None)],
        {"w": normal(1, 3, 1), "last": ints(-1), "one": scalar(1), "where": scalar(1)},
    )


LAST_IS_ONE = (
    node("Shape", "wide", "shape"),
    node("Gather", "shape where", "size"),
    node("Equal", "size one", "is_one"),
)


@pytest.mark.parametrize("one", [1, 2])
def test_the_branch_that_shapes_decide_is_followed(one):
    proto = branching(LAST_IS_ONE)
    proto.graph.initializer[2].raw_data = scalar(one).tobytes()
    x = normal(2, 4, 3)
    (ours,) = graphs.run_ours(proto, {"x": x})
    assert ours.shape == ((4,) if one == 1 else (4, 1))
    graphs.assert_close(ours, graphs.run_theirs(proto, {"x": x})[0])


def test_a_branch_that_the_data_decides_is_refused():
    proto = branching(
        [node("ReduceMax", "wide", "most", keepdims=0), node("Cast", "most", "is_one", to=9)]
    )
    with pytest.raises(
        ModelError, match=r"If \(node 'y', opset 17\) needs the value of 'is_one', which dep"
    ):
        graphs.run_ours(proto, {"x": normal(2, 4, 3)})


def test_a_shape_that_the_data_decides_is_refused():
    proto = graphs.model(
        [node("ReduceSum", "x", "sum", keepdims=0), node("Tile", "x sum", "y", name="repeat")],
        [info("x", [2], INT64)],
        [info("y", None)],
    )
    with pytest.raises(
        ModelError, match=r"Tile \(node 'repeat', opset 17\) needs the value of 'sum'"
    ):
        graphs.run_ours(proto, {"x": ints(1, 2)})


def test_sites_are_named_after_the_nodes():
    proto = graphs.conv_net()
    made = imported(proto)
    program = trace(lambda p, x: made.apply(p, x)[0], made.params, normal(1, 2, 3, 8, 8))
    assert [site.name for site in program.sites] == ["stem/Relu", "pool/Mean"]


def test_any_value_can_be_an_output():
    proto = graphs.conv_net()
    x = normal(1, 2, 3, 8, 8)
    logits, hidden = graphs.run_ours(proto, {"image": x}, ["logits", "r1"])
    proto.graph.output.extend([info("logits", None), info("r1", None)])
    for ours, theirs in zip(
        (logits, hidden), graphs.run_theirs(proto, {"image": x}, ["logits", "r1"]), strict=True
    ):
        graphs.assert_close(ours, theirs)


def test_operators_that_onnx_defines_by_others():
    nodes = [
        node("Attention", "q k v", "mixed", is_causal=1, q_num_heads=2, kv_num_heads=2),
        node("Add", "mixed q", "y"),
    ]
    shaped = [info(name, ["batch", 5, 8]) for name in "qkv"]
    proto = graphs.model(nodes, shaped, [info("y", ["batch", 5, 8])], opset=23)
    proto.ir_version = 11
    data = {name: normal(i, 3, 5, 8) for i, name in enumerate("qkv")}
    expanded = expand_functions(proto, KNOWN)
    assert "Attention" not in {n.op_type for n in expanded.graph.node}
    graph = to_graph(parse_model(expanded.SerializeToString(), "made"), "made")
    made = import_graph(graph, ["y"])
    ours = np.asarray(made.apply(made.params, *(data[v.name] for v in made.inputs))[0])
    graphs.assert_close(ours, graphs.run_theirs(proto, data)[0])


def test_gradients_flow_through():
    made = imported(graphs.conv_net())
    params = {name: jnp.asarray(x) for name, x in made.params.items()}
    gradients = jax.grad(lambda p: made.apply(p, normal(1, 2, 3, 8, 8))[0].max())(params)
    assert all(bool(jnp.isfinite(g).all()) for g in gradients.values())
    assert float(jnp.abs(gradients["w1"]).max()) > 0
