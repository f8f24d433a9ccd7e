"""Files that are whole are read, files that are not are refused in one line."""

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, helper

from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models.onnx import from_onnx, load_graph, reader
from tests.models.onnx import graphs
from tests.models.onnx.graphs import info, node


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(graphs.conv_net(), path)
    return path


def refused(path, error=WeightsError):
    with pytest.raises(error) as raised:
        load_graph(path)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_whole_file(net):
    graph = load_graph(net)
    assert [n.op for n in graph.nodes[:3]] == ["Conv", "Relu", "Conv"]
    assert str(graph.inputs[0]) == "image float32[?, 3, 8, 8]"
    assert [value.name for value in graph.outputs] == ["scores"]
    assert graph.nodes[0].attributes == {"pads": (1, 1, 1, 1)} and graph.nodes[0].opset == 17
    np.testing.assert_array_equal(graph.tensors["w3"], graphs.normal(9, 4, 6))


def test_no_file(tmp_path):
    assert "No such file" in refused(tmp_path / "gone.onnx")


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file(net, share):
    content = net.read_bytes()
    net.write_bytes(content[: int(share * len(content))])
    assert "no ONNX model, or a truncated one" in refused(net)


@pytest.mark.parametrize("content", [b"\x80\x02}q\x00.", b"<html>not found</html>", b"\x00" * 64])
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert "no ONNX model" in refused(path)


@pytest.mark.parametrize("opset", [6, 99])
def test_an_opset_that_nobody_checked(tmp_path, opset):
    proto = graphs.conv_net()
    proto.opset_import[0].version = opset
    onnx.save(proto, tmp_path / "net.onnx")
    assert f"is of opset {opset}, expected 7 to 28" in refused(tmp_path / "net.onnx")


def saved(tmp_path, *nodes, tensors=()):
    path = tmp_path / "net.onnx"
    onnx.save(graphs.model(nodes, [info("x", [2])], [info("y", [2])], tensors), path)
    return path


def test_a_cycle(tmp_path):
    path = saved(
        tmp_path, node("Add", "x b", "a", "one"), node("Neg", "a", "b"), node("Neg", "b", "y")
    )
    message = refused(path)
    assert message.startswith("Add (node 'one', opset 17) of net.onnx reads 'b', which neither")


def test_an_input_that_is_missing(tmp_path):
    assert "reads 'weight', which neither" in refused(saved(tmp_path, node("Mul", "x weight", "y")))


def test_an_output_that_is_missing(tmp_path):
    assert "nothing in net.onnx computes the output 'y'" in refused(
        saved(tmp_path, node("Neg", "x", "z"))
    )


def test_a_name_that_is_made_twice(tmp_path):
    assert "makes 'y', which is there" in refused(
        saved(tmp_path, node("Neg", "x", "y"), node("Abs", "x", "y"))
    )


def test_a_tensor_with_too_little_data(tmp_path):
    proto = graphs.conv_net()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    onnx.save(proto, tmp_path / "net.onnx")
    assert "tensor 'w1' of net.onnx cannot be read" in refused(tmp_path / "net.onnx")


def test_a_tensor_of_texts(tmp_path):
    texts = helper.make_tensor("words", onnx.TensorProto.STRING, [1], [b"word"])
    proto = graphs.conv_net()
    proto.graph.initializer.append(texts)
    onnx.save(proto, tmp_path / "net.onnx")
    assert "tensor 'words' of net.onnx cannot be read (elements that are texts)" in refused(
        tmp_path / "net.onnx"
    )


@pytest.fixture
def external(tmp_path):
    """A model in a directory of its own, with its tensors in an external file."""
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "net.onnx"
    onnx.save(
        graphs.conv_net(), path, save_as_external_data=True, location="net.data", size_threshold=0
    )
    return path


def move(path, location):
    """Say that the tensors are elsewhere."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        tensor.raw_data = b""
        external_data_helper.set_external_data(tensor, location)
    path.write_bytes(proto.SerializeToString())


def test_external_data(external, net):
    assert external.stat().st_size < net.stat().st_size
    whole, split = load_graph(net), load_graph(external)
    assert set(whole.tensors) == set(split.tensors)
    for name, expected in whole.tensors.items():
        np.testing.assert_array_equal(split.tensors[name], expected)


def test_external_data_that_is_gone(external):
    (external.parent / "net.data").unlink()
    assert "kept in 'net.data', which cannot be read (No such file" in refused(external)


def test_external_data_that_is_truncated(external):
    data = external.parent / "net.data"
    data.write_bytes(data.read_bytes()[:-8])
    assert "which ends before: the external data is truncated" in refused(external)


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "empty"])
def test_external_data_outside_of_the_directory(external, tmp_path, kind):
    outside = tmp_path / "outside.data"
    (external.parent / "net.data").rename(outside)
    if kind == "link":
        (external.parent / "link.data").symlink_to(outside)
    place = {
        "parent": "../outside.data",
        "absolute": str(outside),
        "link": "link.data",
        "empty": "",
    }
    move(external, place[kind])
    assert "external data is read from the model's directory only" in refused(external)


def test_data_in_a_checkpoint_only(tmp_path):
    """A graph whose tensors were taken out is no model by itself."""
    proto = graphs.conv_net()
    path = tmp_path / "net.onnx"
    path.write_bytes(reader.without_data(proto, keep=()))
    assert "kept in 'apparate-params', which cannot be read" in refused(path)


def test_all_missing_operators_are_named_at_once(tmp_path):
    nodes = [
        node("NonMaxSuppression", "x x", "a", "suppress"),
        helper.make_node("FusedThing", ["a"], ["b"], name="fused", domain="com.microsoft"),
        node("Det", "b", "c", "first"),
        node("Det", "c", "y", "second"),
    ]
    path = tmp_path / "net.onnx"
    domain = helper.make_opsetid("com.microsoft", 1)
    onnx.save(graphs.model(nodes, [info("x", [2])], [info("y", [2])], domains=[domain]), path)
    with pytest.raises(ModelError) as raised:
        from_onnx(path)
    assert str(raised.value) == (
        "3 operators of the model are not supported: "
        "NonMaxSuppression (node 'suppress', opset 17), "
        "com.microsoft.FusedThing (node 'fused', opset 1), "
        "Det (node 'first', opset 17) and 1 more; docs/onnx.md lists those that are"
    )


def test_operators_that_the_output_does_not_need_may_be_missing(tmp_path):
    proto = graphs.conv_net()
    proto.graph.node.insert(0, node("NonZero", "image", "places"))
    proto.graph.node.insert(1, node("Unique", "places", "which"))
    proto.graph.output.append(info("which", None))
    onnx.save(proto, tmp_path / "net.onnx")
    assert from_onnx(tmp_path / "net.onnx").inputs[0].name == "image"


def test_functions_of_the_file_are_inlined_with_their_defaults(tmp_path):
    scale = helper.make_function(
        "mine",
        "Scale",
        ["X"],
        ["Y"],
        [helper.make_node("Constant", [], ["c"]), helper.make_node("Mul", ["X", "c"], ["Y"])],
        [helper.make_opsetid("", 17)],
        attribute_protos=[helper.make_attribute("factor", 3.0)],
    )
    reference = scale.node[0].attribute.add(name="value_float", ref_attr_name="factor")
    reference.type = onnx.AttributeProto.FLOAT
    proto = graphs.model(
        [
            helper.make_node("Scale", ["x"], ["a"], domain="mine"),
            helper.make_node("Scale", ["a"], ["y"], domain="mine", factor=0.5),
        ],
        [info("x", [2])],
        [info("y", [2])],
        domains=[helper.make_opsetid("mine", 1)],
        functions=[scale],
    )
    x = np.asarray([1, -2], np.float32)
    np.testing.assert_array_equal(graphs.run_ours(proto, {"x": x})[0], 1.5 * x)
