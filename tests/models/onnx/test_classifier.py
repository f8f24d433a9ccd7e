"""A classifier of a file: its output, its inputs, its softmax, and its life in a checkpoint."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from apparate_jax.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from apparate_jax.errors import CheckpointError, ModelError
from apparate_jax.graph import trace
from apparate_jax.models import load_model, rebuild
from apparate_jax.models.onnx import from_onnx
from apparate_jax.ramps import choose_kind
from tests.models.onnx import graphs
from tests.models.onnx.graphs import INT64, info, node, normal


def saved(tmp_path, proto, name="net.onnx"):
    path = tmp_path / name
    onnx.save(proto, path)
    return path


def text_net(time="time", classes=3, head="logits"):
    """Token embeddings, a masked mean or the first token, a dense layer."""
    pool = [
        node("Cast", "attention_mask", "mask", to=graphs.FLOAT),
        node("Unsqueeze", "mask last", "weights"),
        node("Mul", "hidden weights", "kept"),
        node("ReduceMean", "kept", "pooled", axes=[1], keepdims=0),
    ]
    nodes = [
        node("Gather", "table input_ids", "embedded"),
        node("MatMul", "embedded w", "mixed"),
        node("Tanh", "mixed", "hidden"),
        *pool,
        node("Gemm", "pooled head", "logits"),
        node("ArgMax", "logits", "label", axis=1),
    ]
    tensors = {
        "table": normal(1, 50, 8),
        "w": normal(2, 8, 8),
        "head": normal(3, 8, classes),
        "last": np.asarray([-1], np.int64),
        "zero": np.asarray(0, np.int64),
    }
    outputs = {
        "logits": info("logits", ["batch", classes]),
        "label": info("label", ["batch", 1], INT64),
        "hidden": info("hidden", ["batch", time, 8]),
    }
    inputs = [info(name, ["batch", time], INT64) for name in ("input_ids", "attention_mask")]
    return graphs.model(nodes, inputs, [outputs.pop(head), *outputs.values()], tensors)


def with_tail(*nodes):
    """The small network with other nodes behind its logits."""
    proto = graphs.conv_net(softmax=False)
    proto.graph.node.extend(nodes)
    del proto.graph.output[:]
    proto.graph.output.append(info("out", None))
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.asarray([0, 4], np.int64), "shape")
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([1], np.int64), "ones"))
    return proto


TAILS = {
    "softmax": [node("Softmax", "logits", "out", name="last")],
    "softmax-axis-1": [node("Softmax", "logits", "out", name="last", axis=1)],
    "softmax-then-layout": [
        node("Softmax", "logits", "probabilities", name="last"),
        node("Cast", "probabilities", "cast", to=graphs.FLOAT),
        node("Reshape", "cast shape", "out"),
    ],
    "softmax-over-channels": [
        node("Reshape", "logits long", "wide"),
        node("Softmax", "wide", "out", name="last", axis=1),
    ],
    "written-out": [
        node("ReduceMax", "logits", "most", axes=[1]),
        node("Sub", "logits most", "less"),
        node("Exp", "less", "powers"),
        node("ReduceSum", "powers ones", "sum"),
        node("Expand", "sum shape_of", "sums"),
        node("Div", "powers sums", "out", name="last"),
    ],
}


@pytest.mark.parametrize("tail", TAILS)
def test_a_softmax_at_the_end_is_taken_off(tmp_path, tail):
    proto = with_tail(*TAILS[tail])
    for name, value in {"long": [0, 4, 1, 1], "shape_of": [1, 4]}.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.asarray(value, np.int64), name)
        )
    model = from_onnx(saved(tmp_path, proto))
    assert "(node 'last', opset 17), is left out" in model.source["note"]
    x = normal(1, 2, 3, 8, 8)
    logits = np.asarray(model.apply(model.params, x))
    (scores,) = graphs.run_theirs(proto, {"image": x})
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    graphs.assert_close(shares, scores.reshape(2, 4))
    assert logits.min() < 0 or logits.max() > 1


KEPT = {
    "log-softmax": [node("LogSoftmax", "logits", "out")],
    "softmax-inside": [node("Softmax", "logits", "p"), node("Gemm", "p again", "out")],
    "softmax-over-the-batch": [node("Softmax", "logits", "out", axis=0)],
    "no-softmax": [node("Div", "logits again_row", "out")],
}


@pytest.mark.parametrize("tail", KEPT)
def test_nothing_else_is_taken_off(tmp_path, tail):
    proto = with_tail(*KEPT[tail])
    for name, value in {"again": normal(1, 4, 4), "again_row": 1 + normal(2, 4) ** 2}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    model = from_onnx(saved(tmp_path, proto))
    assert "note" not in model.source
    x = normal(1, 2, 3, 8, 8)
    graphs.assert_close(
        np.asarray(model.apply(model.params, x)), graphs.run_theirs(proto, {"image": x})[0]
    )


def test_text_inputs(tmp_path):
    proto = text_net()
    model = from_onnx(saved(tmp_path, proto), seq_len=9)
    assert [(s.name, s.shape, s.dtype, s.low, s.high) for s in model.inputs] == [
        ("input_ids", (9,), "int32", 0, 50),
        ("attention_mask", (9,), "int32", 1, 2),
    ]
    assert model.mask == "attention_mask" and model.pooling == "mean"
    ids, mask = model.example_inputs(4)
    theirs = graphs.run_theirs(
        proto, {"input_ids": ids.astype(np.int64), "attention_mask": mask.astype(np.int64)}
    )
    graphs.assert_close(np.asarray(model.apply(model.params, ids, mask)), theirs[0])
    assert from_onnx(tmp_path / "net.onnx").inputs[0].shape == (128,)


def test_a_length_that_the_graph_fixes(tmp_path):
    assert from_onnx(saved(tmp_path, text_net(time=7)), seq_len=9).inputs[0].shape == (7,)


def test_inputs_that_the_output_does_not_need_are_left_out(tmp_path):
    proto = text_net()
    proto.graph.input.append(info("token_type_ids", ["batch", "time"], INT64))
    model = from_onnx(saved(tmp_path, proto))
    assert [spec.name for spec in model.inputs] == ["input_ids", "attention_mask"]


def test_pooling_is_read_from_the_graph(tmp_path):
    proto = text_net()
    del proto.graph.node[3:7]
    proto.graph.node.insert(3, node("Gather", "hidden zero", "pooled", axis=1))
    path = saved(tmp_path, proto)
    assert from_onnx(path).pooling == "first"
    assert from_onnx(path, pooling="mean").pooling == "mean"


def test_the_output_can_be_named(tmp_path):
    path = saved(tmp_path, text_net(head="hidden"))
    model = load_model(str(path), output="logits")
    assert model.source == {"kind": "onnx", "output": "logits"}
    assert model.apply(model.params, *model.example_inputs(2)).shape == (2, 3)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nothing", r"no output 'nothing', its outputs are \['hidden', 'logits', 'label'\]"),
        (
            None,
            r"the output 'hidden' is float32\[2, 128, 8\] for a batch of 2, an encoder's "
            r"embeddings, no classifier: expected logits f\[batch, classes\]; the graph's outputs "
            r"are hidden float32\[\?, \?, 8\]; logits float32\[\?, 3\]; label int64\[\?, 1\]: name "
            r"another one \(--output\)",
        ),
        ("label", r"the output 'label' is int32\[2, 1\] for a batch of 2, expected logits"),
    ],
)
def test_an_output_that_is_no_classifier(tmp_path, output, message):
    with pytest.raises(ModelError, match=message):
        from_onnx(saved(tmp_path, text_net(head="hidden")), output=output)


def test_images_that_leave_their_size_open(tmp_path):
    path = saved(tmp_path, graphs.conv_net(size=None))
    with pytest.raises(
        ModelError, match=r"image float32\[\?, 3, \?, \?\] leaves its size open: give it"
    ):
        from_onnx(path)
    assert from_onnx(path, image_size="12").inputs[0].shape == (3, 12, 12)
    assert from_onnx(path, image_size="12x20").inputs[0].shape == (3, 12, 20)
    for wrong in ("12x", "0", "1x2x3", "wide"):
        with pytest.raises(ModelError, match=f"image size is '{wrong}', expected 2 numbers"):
            from_onnx(path, image_size=wrong)


def test_a_graph_for_one_example_that_answers_otherwise_for_two(tmp_path):
    """Time stands in front of the batch where shapes are written down: rows would be mixed."""
    proto = graphs.model(
        [
            node("Transpose", "x", "turned", perm=[1, 0, 2]),
            node("Reshape", "turned shape", "folded"),
            node("Transpose", "folded", "back", perm=[1, 0, 2]),
            node("Reshape", "back row", "rows"),
            node("Gemm", "rows w", "y"),
        ],
        [info("x", [1, 6, 8])],
        [info("y", [1, 3])],
        {
            "shape": np.asarray([6, 2, 4], np.int64),
            "row": np.asarray([1, 48], np.int64),
            "w": normal(1, 48, 3),
        },
    )
    with pytest.raises(ModelError, match="for a batch of 1 and answers otherwise at 2: export it"):
        from_onnx(saved(tmp_path, proto))


def test_an_input_without_batch(tmp_path):
    proto = graphs.conv_net()
    proto.graph.input.append(helper.make_tensor_value_info("rate", TensorProto.INT64, []))
    proto.graph.node.insert(0, node("Cast", "rate", "factor", to=graphs.FLOAT))
    proto.graph.node.insert(1, node("Mul", "image factor", "scaled"))
    proto.graph.node[2].input[0] = "scaled"
    with pytest.raises(ModelError, match=r"the input rate int64\[\] has no batch axis"):
        from_onnx(saved(tmp_path, proto))


def test_unknown_settings(tmp_path):
    with pytest.raises(ModelError, match=r"unknown settings \['classes'\].*'output', 'seq_len'"):
        load_model(str(saved(tmp_path, text_net())), classes=3)


def test_labels_and_tokenizer_beside_the_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b", "2": "c"}}))
    (tmp_path / "tokenizer.json").write_text("{}")
    model = from_onnx(saved(tmp_path, text_net(), "model.onnx"))
    assert model.labels == ("a", "b", "c") and model.assets["tokenizer.json"] == b"{}"
    assert model.name == tmp_path.name


def test_ramps_pool_over_space_after_the_channels(tmp_path):
    model = from_onnx(saved(tmp_path, graphs.conv_net()))
    program = trace(model.apply, model.params, *model.example_inputs(2))
    assert program.sites[0].shape == (2, 6, 8, 8)
    assert choose_kind(program.sites[0], model) == "spatial_mean_first"
    assert choose_kind(program.sites[0], replace(model, channels="last")) == "spatial_mean"


NETS = {
    "images": (graphs.conv_net, {}),
    "text": (text_net, {"seq_len": 6}),
    "external": (graphs.conv_net, {}),
}


@pytest.mark.parametrize("net", NETS)
def test_a_checkpoint_lives_without_the_file(tmp_path, net):
    make, options = NETS[net]
    path = tmp_path / "net.onnx"
    external = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    onnx.save(make(), path, **(external if net == "external" else {}))
    model = from_onnx(path, **options)
    program = trace(model.apply, model.params, *model.example_inputs(2))
    save_checkpoint(tmp_path / "c", Checkpoint(model, program.sites))
    for file in tmp_path.glob("net.*"):
        file.unlink()
    found = load_checkpoint(tmp_path / "c").model
    assert found.source == model.source and found.channels == "first"
    assert found.inputs == model.inputs and found.mask == model.mask
    inputs = model.example_inputs(3)
    np.testing.assert_array_equal(
        found.apply(found.params, *inputs), model.apply(model.params, *inputs)
    )
    again = trace(found.apply, found.params, *found.example_inputs(2))
    assert again.sites == program.sites


def test_weights_are_in_the_checkpoint_once(tmp_path):
    proto = graphs.conv_net(classes=4000)
    model = from_onnx(saved(tmp_path, proto))
    assert (tmp_path / "net.onnx").stat().st_size > 90_000
    assert len(model.assets["model.onnx"]) < 3_000


def test_a_checkpoint_whose_graph_is_gone():
    with pytest.raises(ModelError, match=r"model.onnx is not among the files of the model"):
        rebuild({"kind": "onnx", "output": "y"}, {})


def test_a_checkpoint_whose_graph_is_damaged(tmp_path):
    model = from_onnx(saved(tmp_path, graphs.conv_net()))
    cut = {"model.onnx": model.assets["model.onnx"][:300]}
    save_checkpoint(tmp_path / "c", Checkpoint(replace(model, assets=cut), ()))
    with pytest.raises(CheckpointError, match=r"cannot be made again: model.onnx is no ONNX model"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_stages_recompose_exactly(tmp_path, batch):
    model = from_onnx(saved(tmp_path, graphs.conv_net()))
    inputs = model.example_inputs(batch)
    program = trace(model.apply, model.params, *model.example_inputs(2)).rebatch(batch)
    whole = program.split([])[0](None, *inputs)
    for chosen in ([0], [1], [0, 1]):
        carry = None
        for stage in program.split(chosen):
            carry = stage(carry, *inputs)
        np.testing.assert_array_equal(carry, whole)
