"""An ``.onnx`` file through the commands: inject, inspect, train-ramps, with the file gone."""

import numpy as np
import onnx
import pytest

from apparate_jax.checkpoint import load_checkpoint
from tests.models.onnx import graphs


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(graphs.conv_net(), path)
    return path


def test_inject_then_train_without_the_file(apparate, tmp_path, net):
    done = apparate("inject", net, "-o", tmp_path / "c", "--json", "-")
    assert done.status == 0
    assert "note: the softmax at the end, Softmax (node 'head/Softmax', opset 17), is" in done.err
    assert done.json["model"] == "net"
    assert [site["name"] for site in done.json["sites"]] == ["stem/Relu", "pool/Mean"]
    net.unlink()
    images = np.random.default_rng(0).uniform(-1, 1, (240, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    words = ("--data", tmp_path / "data.npz", "--data-frac", 1)
    assert apparate("train-ramps", tmp_path / "c", *words).status == 0
    saved = load_checkpoint(tmp_path / "c")
    assert [ramp.kind for ramp in saved.ramps] == ["spatial_mean_first", "spatial_mean_first"]
    assert saved.ramps[0].params["kernel"].shape == (6, 4)
    theirs = graphs.run_theirs(graphs.conv_net(softmax=False), {"image": images})[0]
    graphs.assert_close(np.asarray(saved.model.apply(saved.model.params, images)), theirs)
    assert apparate("inspect", tmp_path / "c").status == 0


def test_output_and_image_size(apparate, tmp_path):
    proto = graphs.conv_net(size=None, softmax=False)
    proto.graph.output.insert(0, graphs.info("r2", None))
    onnx.save(proto, tmp_path / "net.onnx")
    words = ("inspect", tmp_path / "net.onnx", "--image-size", "12x10")
    refused = apparate(*words)
    assert refused.status == 1 and "name another one (--output)" in refused.error
    done = apparate(*words, "--output", "logits", "--json", "-")
    assert done.json["inputs"] == [{"name": "image", "shape": [3, 12, 10], "dtype": "float32"}]
    assert done.json["sites"][0]["shape"] == [2, 6, 12, 10]


def test_nothing_is_left_of_a_file_that_is_no_model(apparate, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"<html>not found</html>")
    done = apparate("inject", path, "-o", tmp_path / "c")
    assert done.status == 1 and f"{path} is no ONNX model" in done.error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx"]
