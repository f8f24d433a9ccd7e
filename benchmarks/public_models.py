"""Public classifiers of other authors, from PyPI, with random weights: traced, cut, put together.

Not a line of them is touched, and none is a dependency of this project: whatever is installed is
tried, the rest is named with the command that installs it. Writes results/public_models.json and
the table in docs/public-models.md.

Rows of packages that are not installed now are kept from the last run; names of packages as
arguments try these only. Most of them pin old or heavy dependencies, so install them without::

    pip install --no-deps --target DIR PACKAGE ...
    PYTHONPATH=DIR python benchmarks/public_models.py
"""

import importlib.metadata
import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")  # before keras is imported

import jax
import jax.numpy as jnp
import numpy as np
from _common import RESULTS, write_result

from apparate_jax.core import Model
from apparate_jax.graph import Program, cost, trace
from apparate_jax.models import from_equinox, from_function, from_linen, from_nnx

DOCS = Path(__file__).parent.parent / "docs" / "public-models.md"
START, END = "<!-- table: python benchmarks/public_models.py -->", "<!-- end of table -->"
BATCH = 2
KEY = jax.random.key(0)


class Attempt(NamedTuple):
    """A model to try.

    Attributes:
        package: Name on PyPI, and version that was tried when this was written.
        model: Name for people.
        make: Imports the package; returns the model and its inputs.
        needs: Further packages to install.
        context: What the package wants around its use.
    """

    package: str
    model: str
    make: Callable[[], tuple[Model, tuple[np.ndarray, ...]]]
    needs: str = ""
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


def image(size: int, channels_first: bool = False) -> np.ndarray:
    """Random pictures f32[2, size, size, 3], or channels first."""
    x = np.random.default_rng(0).uniform(0, 1, (BATCH, size, size, 3)).astype(np.float32)
    return x.transpose(0, 3, 1, 2) if channels_first else x


def linen(module: Any, x: np.ndarray, **call: Any) -> tuple[Model, tuple[np.ndarray, ...]]:
    """A Linen module with its own random initial weights."""
    variables = jax.jit(lambda key: module.init({"params": key, "dropout": key}, x, **call))(KEY)
    return from_linen(module, variables, apply_kwargs=call), (x,)


def flaxmodels(name: str) -> Any:
    """ResNet and VGG of flaxmodels; VGG's dense layers ask for full-size pictures."""
    import flaxmodels as fm

    module = getattr(fm, name)(output="logits", pretrained=None)
    return linen(module, image(224 if name.startswith("VGG") else 96), train=False)


def jax_resnet(name: str) -> Any:
    """The ResNet family of jax-resnet."""
    from jax_resnet import resnet

    variables = jax.jit(getattr(resnet, name)(n_classes=100).init)(KEY, image(96))
    module = getattr(resnet, name)(n_classes=100, norm_cls=_frozen_norm())
    return from_linen(module, variables), (image(96),)


def _frozen_norm() -> Any:
    from functools import partial

    from flax import linen as nn

    return partial(nn.BatchNorm, momentum=0.9, use_running_average=True)


def jax_models(name: str, size: int) -> Any:
    """Models of jax-models by their registered name."""
    from jax_models.models.model_registry import model_dict

    module = model_dict[name](attach_head=True, num_classes=100)
    return linen(module, image(size), deterministic=True)


def haiku(name: str) -> Any:
    """Networks that come with Haiku."""
    import haiku as hk

    def forward(x: Any, is_training: bool) -> Any:
        return getattr(hk.nets, name)(num_classes=100)(x, is_training=is_training)

    net = hk.without_apply_rng(hk.transform_with_state(forward))
    # Haiku makes batch statistics only while training.
    params = jax.jit(lambda key, x: net.init(key, x, is_training=True))(KEY, image(96))

    def apply(params: Any, x: Any) -> Any:
        return net.apply(*params, x, is_training=False)[0]

    return from_function(apply, params, name=name), (image(96),)


def keras(name: str, size: int) -> Any:
    """Keras' applications on its JAX backend."""
    import keras as k

    built = getattr(k.applications, name)
    model = built(weights=None, input_shape=(size, size, 3), classifier_activation=None)

    def values(variables: Any) -> list[Any]:
        return [variable.value for variable in variables]

    params = values(model.trainable_variables), values(model.non_trainable_variables)

    def apply(params: Any, x: Any) -> Any:
        return model.stateless_call(*params, x, training=False)[0]

    return from_function(apply, params, name=name), (image(size),)


def transformers_text(name: str, config: str) -> Any:
    """Flax text classifiers of transformers (the last major version that has them is 4)."""
    import transformers as tf

    model = getattr(tf, name)(getattr(tf, config)(), input_shape=(1, 64))
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 1000, (BATCH, 64)).astype(np.int32)
    mask = (np.arange(64) < np.array([[40], [64]])).astype(np.int32)

    def apply(params: Any, ids: Any, mask: Any) -> Any:
        return model(ids, attention_mask=mask, params=params, train=False).logits

    return from_function(apply, model.params, name=name), (ids, mask)


def transformers_image(name: str, config: str) -> Any:
    """Flax image classifiers of transformers."""
    import transformers as tf

    settings = getattr(tf, config)(num_labels=100)
    model = getattr(tf, name)(settings, input_shape=(1, 224, 224, 3))

    def apply(params: Any, x: Any) -> Any:
        return model(x, params=params, train=False).logits

    return from_function(apply, model.params, name=name), (image(224, channels_first=True),)


def jimm() -> Any:
    """The NNX vision transformer of jax-image-models, half as deep as usual."""
    import jimm as package
    from flax import nnx

    module = package.VisionTransformer(num_classes=100, num_layers=6, rngs=nnx.Rngs(0))
    return from_nnx(module), (image(224),)


def one_device_mesh() -> AbstractContextManager[Any]:
    """A mesh with the axes that jax-image-models annotates its parameters with."""
    context: AbstractContextManager[Any] = jax.set_mesh(jax.make_mesh((1, 1), ("fsdp", "model")))
    return context


def vitax() -> Any:
    """The NNX vision transformer of vitax, half as deep as usual."""
    import vitax as package
    from flax import nnx

    module = package.VisionTransformer(num_classes=100, num_layers=6, fsdp=False, rngs=nnx.Rngs(0))
    return from_nnx(module), (image(224),)


def equimo(kind: str, name: str) -> Any:
    """Equinox models of equimo; each call wants a random key, used or not."""
    import importlib

    build = getattr(importlib.import_module(f"equimo.models.{kind}"), name)
    x = image(224 if kind == "vit" else 96, channels_first=True)
    return from_equinox(build(pretrained=False, key=KEY), call_kwargs={"key": KEY}), (x,)


def eqxvision() -> Any:
    """ResNet-18 of eqxvision (Equinox)."""
    from eqxvision.models import resnet18

    return from_equinox(resnet18(num_classes=100), call_kwargs={"key": KEY}), (image(96, True),)


def flaim() -> Any:
    """ResNet of flaim (Linen)."""
    import flaim as package

    return linen(package.get_model("resnet18", pretrained=False), image(96), training=False)


def vit_flax() -> Any:
    """The vision transformer of vit-flax."""
    from vit_flax import ViT

    return linen(ViT(), image(32))


_TRANSFORMERS = "huggingface-hub==0.33.4 tokenizers==0.21.4 regex requests filelock pyyaml tqdm"
_KERAS = "absl-py h5py optree namex"
_JIMM = "tokamax einshape immutabledict typeguard==2.13.3"
_HAIKU = "jmp tabulate absl-py"
ATTEMPTS = (
    Attempt("flaxmodels==0.1.3", "ResNet18", lambda: flaxmodels("ResNet18"), "h5py requests"),
    Attempt("flaxmodels==0.1.3", "ResNet50", lambda: flaxmodels("ResNet50"), "h5py requests"),
    Attempt("flaxmodels==0.1.3", "VGG16", lambda: flaxmodels("VGG16"), "h5py requests"),
    Attempt("jax-resnet==0.0.4", "ResNet18", lambda: jax_resnet("ResNet18")),
    Attempt("jax-resnet==0.0.4", "ResNeSt50Fast", lambda: jax_resnet("ResNeSt50Fast")),
    Attempt("jax-models==0.0.5", "MLP-Mixer S/32", lambda: jax_models("mlpmixer-s32", 224)),
    Attempt("jax-models==0.0.5", "ConvNeXt tiny", lambda: jax_models("convnext-tiny", 96)),
    Attempt("jax-models==0.0.5", "Swin tiny", lambda: jax_models("swin-tiny-224", 224)),
    Attempt("jax-models==0.0.5", "PoolFormer S12", lambda: jax_models("poolformer-s12", 96)),
    Attempt("dm-haiku==0.0.17", "ResNet18", lambda: haiku("ResNet18"), "jmp tabulate absl-py"),
    Attempt(
        "dm-haiku==0.0.17", "MobileNetV1", lambda: haiku("MobileNetV1"), "jmp tabulate absl-py"
    ),
    Attempt("keras==3.15.1", "MobileNetV2", lambda: keras("MobileNetV2", 96), _KERAS),
    Attempt("keras==3.15.1", "DenseNet121", lambda: keras("DenseNet121", 96), _KERAS),
    Attempt("keras==3.15.1", "InceptionV3", lambda: keras("InceptionV3", 96), _KERAS),
    Attempt("keras==3.15.1", "EfficientNetB0", lambda: keras("EfficientNetB0", 96), _KERAS),
    Attempt("keras==3.15.1", "NASNetMobile", lambda: keras("NASNetMobile", 96), _KERAS),
    Attempt(
        "transformers==4.52.4",
        "DistilBERT",
        lambda: transformers_text("FlaxDistilBertForSequenceClassification", "DistilBertConfig"),
        _TRANSFORMERS,
    ),
    Attempt(
        "transformers==4.52.4",
        "BERT base",
        lambda: transformers_text("FlaxBertForSequenceClassification", "BertConfig"),
        _TRANSFORMERS,
    ),
    Attempt(
        "transformers==4.52.4",
        "ResNet-50",
        lambda: transformers_image("FlaxResNetForImageClassification", "ResNetConfig"),
        _TRANSFORMERS,
    ),
    Attempt("jax-image-models==0.4.0", "ViT, 6 layers", jimm, _JIMM, one_device_mesh),
    Attempt("vitax==0.0.10", "ViT, 6 layers", vitax, f"transformers==4.52.4 {_TRANSFORMERS}"),
    Attempt("equimo==1.1.0", "ViT tiny", lambda: equimo("vit", "vit_tiny_patch16_224"), "timm"),
    Attempt(
        "equimo==1.1.0",
        "MobileNetV3 small",
        lambda: equimo("mobilenet", "mobilenetv3_small"),
        "timm",
    ),
    Attempt("eqxvision==0.2.8", "ResNet18", eqxvision),
    Attempt("flaim==0.0.5", "ResNet18", flaim),
    Attempt("vit-flax==0.0.3", "ViT", vit_flax),
)


def awake(params: Any) -> Any:
    """Parameters with small numbers for zeros: layers that start at zero would hide a difference.

    Positive ones, since a variance may start at zero too.
    """
    rng = np.random.default_rng(0)

    def wake(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        small = 0.02 * np.abs(rng.standard_normal(leaf.shape)).astype(leaf.dtype)
        return jnp.where(leaf == 0, small, leaf)

    return jax.tree.map(wake, params)


def cut_and_compare(model: Model, inputs: tuple[np.ndarray, ...]) -> dict[str, Any]:
    """Sites and the largest difference of the logits, cut at all of them and at every third."""
    model = replace(model, params=awake(model.params))
    program = trace(model.apply, model.params, *inputs)
    compiled = jax.jit(model.apply, compiler_options=program.compiler_options or None)
    expected = np.asarray(compiled(model.params, *inputs), np.float64)
    assert np.isfinite(expected).all()  # NaN would equal nothing, or hide everything
    sites = range(len(program.sites))
    found = [recomposed(program, cuts, inputs) for cuts in (sites, sites[::3])]
    (whole,) = program.split([])
    layers = sum(cost.is_heavy(eqn) for eqn in whole.body.eqns)
    return {
        "parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(model.params)),
        "layers": layers,
        "sites": len(program.sites),
        "share_of_layers": len(program.sites) / layers,
        "depths": [round(site.depth, 3) for site in program.sites],
        "names": [site.name for site in program.sites],
        "largest_logit": float(np.abs(expected).max()),
        "largest_difference": max(float(np.abs(logits - expected).max()) for logits in found),
        "same_class": all((logits.argmax(1) == expected.argmax(1)).all() for logits in found),
    }


def recomposed(program: Program, cuts: Any, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    """The logits of the stages between ``cuts``, run one after the other."""
    value = None
    for stage in program.split(cuts):
        value = stage(value, *inputs)
    return np.asarray(value, np.float64)


def attempt(entry: Attempt) -> dict[str, Any]:
    """Try one model: its row, with ``error`` where it could not be traced."""
    name = entry.package.partition("==")[0]
    row: dict[str, Any] = {"package": name, "model": entry.model}
    try:
        row["version"] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return {**row, "missing": f"pip install --no-deps {entry.package} {entry.needs}".strip()}
    try:
        with entry.context():
            return {**row, **cut_and_compare(*entry.make())}
    except Exception as error:
        text = re.sub(r"\(?/\S+", "", " ".join(str(error).split()))  # no paths of this machine
        return {**row, "error": f"{type(error).__name__}: {text[:200]}"}


def describe(row: dict[str, Any]) -> str:
    """One line of the table."""
    head = f"| {row['package']} {row['version']} | {row['model']} | "
    if "error" in row:
        return f"{head} - | - | - | not traced: `{row['error']}` |"
    relative = row["largest_difference"] / row["largest_logit"]
    difference = "0" if relative == 0 else f"{relative:.0e}"
    share = f"{row['sites']} of {row['layers']} ({row['share_of_layers']:.0%})"
    span = f"{row['depths'][0]:.2f} to {row['depths'][-1]:.2f}"
    return f"{head}{row['sites']} | {share} | {span} | {difference} |"


def write_table(rows: list[dict[str, Any]]) -> None:
    """Replace the table between the markers of docs/public-models.md."""
    head = [
        "| package | model | sites | ramps per layer | depth of the sites | largest difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    before, _, rest = DOCS.read_text().partition(START)
    _, _, after = rest.partition(END)
    table = "\n".join([*head, *map(describe, rows)])
    DOCS.write_text(f"{before}{START}\n\n{table}\n\n{END}{after}")


def earlier_rows() -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of the last run, by package and model: kept where a package is not installed now."""
    path = RESULTS / "public_models.json"
    rows = json.loads(path.read_text())["models"] if path.exists() else []
    return {(row["package"], row["model"]): row for row in rows}


def main() -> None:
    """Try every model; those whose package is not installed are named at the end."""
    warnings.simplefilter("ignore")  # of other people's code
    rows = earlier_rows()
    missing = set()
    for entry in ATTEMPTS:
        name = entry.package.partition("==")[0]
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        row = attempt(entry)
        print(
            f"{entry.package:24} {entry.model:18} {row.get('missing') or describe(row)}", flush=True
        )
        if "missing" in row:
            missing.add(row["missing"])
        else:
            rows[name, entry.model] = row
    if missing:
        print("not installed; to try them too:", *sorted(missing), sep="\n  ")
    keys = [(entry.package.partition("==")[0], entry.model) for entry in ATTEMPTS]
    kept = [rows[key] for key in keys if key in rows]
    write_result("public_models", {"models": kept})
    write_table(kept)


if __name__ == "__main__":
    main()
