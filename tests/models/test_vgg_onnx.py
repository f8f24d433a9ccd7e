import numpy as np
import pytest

from apparate_jax.errors import WeightsError
from apparate_jax.models.vgg_onnx import vgg_from_onnx
from tests.models.tiny_vision import logits

onnx = pytest.importorskip("onnx")
helper = onnx.helper
SHAPES = [(8, 3, 3, 3), (12, 8, 3, 3), (12, 12, 3, 3)]
POOLED_AFTER = (0, 2)


def _kernels(shapes=SHAPES):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=s), rng.normal(size=s[0])) for s in shapes]


def _file(tmp_path, kernels, activation="Relu", bias=True):
    nodes, initializers, value = [], [], "x"
    for i, (kernel, shift) in enumerate(kernels):
        stored = {f"k{i}": kernel, f"b{i}": shift} if bias else {f"k{i}": kernel}
        for name, array in stored.items():
            array = np.asarray(array, np.float32)
            initializers.append(onnx.numpy_helper.from_array(array, name))
        inputs = [value, *stored]
        nodes.append(helper.make_node("Conv", inputs, [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node(activation, [f"c{i}"], [f"r{i}"]))
        value = f"r{i}"
        if i in POOLED_AFTER:
            pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [value], [f"p{i}"], **pool))
            value = f"p{i}"
    nodes.append(helper.make_node("Softmax", [value], ["y"]))
    kind = onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, [1, 3, 8, 8]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "vgg", ends[:1], ends[1:], initializers)
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "small-vgg.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_convolutions_are_read_and_the_head_is_new(tmp_path):
    kernels = _kernels()
    model = vgg_from_onnx(_file(tmp_path, kernels), classes=4, image_size=16, classifier_width=16)
    config = model.source["config"]
    assert (config["depths"], config["widths"]) == ((1, 2), (8, 12))
    assert (model.name, config["num_labels"]) == ("small-vgg", 4)
    assert model.image.channels == "bgr"
    for i, (kernel, bias) in enumerate(kernels):
        ours = model.params[f"layers/{i}/conv/kernel"]
        np.testing.assert_allclose(ours, kernel.transpose(2, 3, 1, 0), rtol=1e-6)
        np.testing.assert_allclose(model.params[f"layers/{i}/conv/bias"], bias, rtol=1e-6)
    assert logits(model).shape == (3, 4)
    assert model.source["random_weights"] is True


def test_colours_may_be_those_of_torchvision(tmp_path):
    path = _file(tmp_path, _kernels())
    model = vgg_from_onnx(path, caffe_colors=False, image_size=16, classifier_width=16)
    assert model.image.channels == "rgb"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "Sigmoid"}, "a Sigmoid before its last convolution"),
        ({"bias": False}, r"weights \['k0'\], expected a kernel and a bias"),
        ({"kernels": _kernels([(8, 3, 5, 5), *SHAPES[1:]])}, r"is \[8, 3, 5, 5\], expected"),
        ({"kernels": []}, r"\[0\] convolutions"),
    ],
)
def test_other_graphs_are_refused(tmp_path, change, message):
    with pytest.raises(WeightsError, match=message):
        vgg_from_onnx(_file(tmp_path, **{"kernels": _kernels(), **change}), classifier_width=16)
