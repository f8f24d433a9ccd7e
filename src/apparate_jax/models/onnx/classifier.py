"""A classifier from an ``.onnx`` file: which output, which inputs, and what a checkpoint keeps.

A classifier gives logits ``f[batch, classes]``. A softmax at the end is taken off, since confidence
is computed from logits; the note says so. The graph without its parameters is an asset of the
model, so that a checkpoint can make the function again when the file is gone.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.core import InputSpec, Model
from apparate_jax.errors import ModelError
from apparate_jax.models.onnx import reader
from apparate_jax.models.onnx.graph import Graph, Node, Value, live_nodes
from apparate_jax.models.onnx.importer import KNOWN, Imported, import_graph
from apparate_jax.models.tokenizer import read_tokenizer

KIND = "onnx"
ASSET = "model.onnx"
MASK = "attention_mask"
SEQ_LEN = 128
SETTINGS = ("output", "seq_len", "image_size", "pooling")

_LAYOUT_ONLY = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Dropout")


def load_graph(path: str | Path) -> Graph:
    """The graph of an ``.onnx`` file, for :func:`~apparate_jax.models.onnx.import_graph`.

    Raises:
        WeightsError: No such file, no ONNX, damaged, or of an opset that is not supported.
    """
    file = Path(path)
    return reader.to_graph(_read(file), file.name)


def _read(file: Path) -> reader.Proto:
    return reader.expand_functions(reader.read_model(file), KNOWN)


def from_onnx(
    path: str | Path,
    *,
    output: str | None = None,
    seq_len: int | None = None,
    image_size: str | None = None,
    pooling: Literal["mean", "first"] | None = None,
    **others: Any,
) -> Model:
    """A classifier from an ``.onnx`` file.

    Args:
        path: The file; tensors in external files lie in the same directory, and
            ``tokenizer.json`` and ``config.json`` (labels) beside it are used.
        output: Name of the output with the logits, the graph's first unless given.
        seq_len: Length of token inputs where the graph leaves it open.
        image_size: Height and width (``"224"`` or ``"48x192"``) where the graph leaves them open.
        pooling: How the model pools a sequence; read from the graph unless given.
        **others: Settings of other kinds of models, which are refused.

    Raises:
        WeightsError: No such file, no ONNX, damaged, or of an opset that is not supported.
        ModelError: Operators that are not supported, or a graph that is no classifier.
    """
    if others:
        raise ModelError(
            f"unknown settings {sorted(others)} of {path}, expected some of {list(SETTINGS)}: the "
            "graph itself says everything else"
        )
    file = Path(path)
    proto = _read(file)
    graph = reader.to_graph(proto, file.name)
    source: dict[str, Any] = {"kind": KIND, "output": _output(graph, output)}
    stripped, softmax = without_softmax(graph, source["output"])
    if softmax is not None:
        source["note"] = f"the softmax at the end, {softmax}, is left out: logits are served"
    imported = import_graph(stripped, [source["output"]])
    inputs = tuple(_input_spec(v, imported, graph, seq_len, image_size) for v in imported.inputs)
    model = replace(
        _filled(_model(imported, source), imported, inputs, file),
        pooling=pooling or _pooling(graph),
    )
    _check_logits(model, graph)
    if imported.batch is not None:
        _check_batches(model, imported.batch)
    graph_alone = reader.without_data(proto, imported.constants)
    return replace(model, assets={ASSET: graph_alone, **read_tokenizer(file.parent)})


def _filled(model: Model, imported: Imported, inputs: tuple[InputSpec, ...], file: Path) -> Model:
    """The model with its parameters, and with what is said about it in and beside the file."""
    masked = any(spec.name == MASK and len(spec.shape) == 1 for spec in inputs)
    return replace(
        model,
        name=file.resolve().parent.name if file.stem == "model" else file.stem,
        params={name: jnp.asarray(value) for name, value in imported.params.items()},
        inputs=inputs,
        mask=MASK if masked else None,
        labels=_labels(file.parent / "config.json"),
    )


def rebuild_onnx(source: Mapping[str, Any], assets: Mapping[str, bytes]) -> Model:
    """The model that a checkpoint's source and assets describe, its parameters as shapes.

    Raises:
        ModelError: The graph is not among the assets, or is damaged.
    """
    if ASSET not in assets:
        raise ModelError(f"{ASSET} is not among the files of the model: inject it again")
    graph = reader.to_graph(reader.parse_model(assets[ASSET], ASSET), ASSET)
    stripped, _ = without_softmax(graph, str(source["output"]))
    return _model(import_graph(stripped, [str(source["output"])]), source)


def _model(imported: Imported, source: Mapping[str, Any]) -> Model:
    def apply(params: Mapping[str, jax.Array], *inputs: jax.Array) -> jax.Array:
        (out,) = imported.apply(params, *inputs)
        ones = out.ndim > 2 and math.prod(out.shape[2:]) == 1
        return out.reshape(out.shape[:2]) if ones else out

    shapes = {
        name: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
        for name, x in imported.params.items()
    }
    return Model(KIND, apply, shapes, source=dict(source), channels="first")


def _output(graph: Graph, wanted: str | None) -> str:
    names = [value.name for value in graph.outputs]
    if wanted is not None and wanted not in names:
        raise ModelError(f"the model has no output {wanted!r}, its outputs are {names}")
    return wanted or names[0]


def without_softmax(graph: Graph, output: str) -> tuple[Graph, Node | None]:
    """The graph with the softmax behind an output replaced by nothing, and that softmax.

    Only nodes that change no value (a cast, a reshape) may stand between the two. A softmax that is
    written out as exp(x) / sum(exp(x)) is found too. Without any, the graph is returned as it is.
    """
    made_by = {name: node for node in graph.nodes for name in node.outputs if not node.domain}
    node = _behind(output, made_by, _LAYOUT_ONLY)
    if node is None or not (_is_softmax(node) or _is_quotient(node, made_by)):
        return graph, None
    logits = made_by[node.inputs[0]].inputs[0] if node.op == "Div" else node.inputs[0]
    bypass = replace(node, op="Identity", inputs=(logits,), attributes={})
    nodes = tuple(bypass if other is node else other for other in graph.nodes)
    return replace(graph, nodes=nodes), node


def _behind(name: str, made_by: Mapping[str, Node], through: tuple[str, ...]) -> Node | None:
    """The node that makes a value, behind nodes of these operators."""
    node = made_by.get(name)
    while node is not None and node.op in through:
        node = made_by.get(node.inputs[0])
    return node


def _is_softmax(node: Node) -> bool:
    return node.op == "Softmax" and node.attributes.get("axis", 1) in (1, -1)


def _is_quotient(node: Node, made_by: Mapping[str, Node]) -> bool:
    if node.op != "Div":
        return False
    above = made_by.get(node.inputs[0])
    below = _behind(node.inputs[1], made_by, ("Reshape", "Expand", "Identity"))
    if above is None or below is None:
        return False
    return (above.op, below.op) == ("Exp", "ReduceSum") and below.inputs[0] == node.inputs[0]


def _check_logits(model: Model, graph: Graph) -> None:
    """See that the output has the shape of logits for two examples."""
    shapes = [jax.ShapeDtypeStruct((2, *s.shape), np.dtype(s.dtype)) for s in model.inputs]
    if not shapes:
        raise ModelError(f"the output {model.source['output']!r} depends on no input")
    try:
        out = jax.eval_shape(model.apply, model.params, *shapes)
    except ModelError as error:
        raise ModelError(
            f"{error} [tried with a batch of 2: export the model with a batch axis of any size]"
        ) from error
    floating = jnp.issubdtype(out.dtype, jnp.floating)
    if not floating or len(out.shape) != 2 or out.shape[0] != 2 or out.shape[1] < 2:
        outputs = "; ".join(map(str, graph.outputs))
        kind = "an encoder's embeddings, no classifier: " if floating and out.ndim == 3 else ""
        raise ModelError(
            f"the output {model.source['output']!r} is {out.dtype}{list(out.shape)} for a batch of "
            f"2, {kind}expected logits f[batch, classes]; the graph's outputs are {outputs}: name "
            "another one (--output), or export the model with its classifier"
        )


def _check_batches(model: Model, own: int) -> None:
    """See that a graph for one batch size answers the same at twice that size."""
    inputs = model.example_inputs(2 * own)
    run = jax.jit(model.apply)
    halves = [
        run(model.params, *(x[half] for x in inputs)) for half in (slice(own), slice(own, None))
    ]
    apart, together = jnp.concatenate(halves), run(model.params, *inputs)
    if not bool(jnp.allclose(together, apart, rtol=1e-3, atol=1e-3 * jnp.abs(apart).max())):
        raise ModelError(
            f"the graph is for a batch of {own} and answers otherwise at {2 * own}: export it with "
            "a batch axis of any size (dynamic_axes or dynamic_shapes in PyTorch)"
        )


def _input_spec(
    value: Value, imported: Imported, graph: Graph, seq_len: int | None, image_size: str | None
) -> InputSpec:
    if value.dtype is None or not value.shape:
        raise ModelError(
            f"the input {value} has no batch axis, or its type is not known: export the model with "
            "inputs whose leading axis is the batch, and fold what is no data into the graph"
        )
    sizes = list(value.shape[1:])
    open_axes = [i for i, size in enumerate(sizes) if size is None]
    if len(sizes) >= 3 and open_axes:
        for axis, size in zip(
            open_axes, _image_size(value, image_size, len(open_axes)), strict=True
        ):
            sizes[axis] = size
    shape = tuple(size or seq_len or SEQ_LEN for size in sizes)
    dtype = jax.dtypes.canonicalize_dtype(value.dtype)
    low, high = -1.0, 1.0
    if not jnp.issubdtype(dtype, jnp.floating):
        low, high = (1, 2) if value.name == MASK else (0, _rows(value.name, imported, graph))
    return InputSpec(value.name, shape, dtype.name, low, high)


def _image_size(value: Value, given: str | None, count: int) -> tuple[int, ...]:
    if given is None:
        raise ModelError(
            f"the input {value} leaves its size open: give it (--image-size 224 or 48x192)"
        )
    parts = given.lower().split("x")
    if not all(p.isdecimal() and int(p) > 0 for p in parts) or len(parts) not in (1, count):
        raise ModelError(f"the image size is {given!r}, expected {count} numbers like 48x192")
    numbers = tuple(map(int, parts))
    return numbers if len(numbers) == count else numbers * count


def _rows(name: str, imported: Imported, graph: Graph) -> int:
    """How many rows the table has that integers index, 2 if they index none."""
    for node in live_nodes(graph, tuple(value.name for value in graph.outputs)):
        if node.op == "Gather" and node.inputs[1] == name and node.inputs[0] in imported.params:
            return int(imported.params[node.inputs[0]].shape[0])
    return 2


def _pooling(graph: Graph) -> Literal["mean", "first"]:
    """``"first"`` if the graph takes position 0 of a sequence ``[batch, time, width]``."""
    constants = {
        node.outputs[0]: node.attributes.get("value")
        for node in graph.nodes
        if node.op == "Constant"
    }
    for node in graph.nodes:
        if node.op == "Gather" and node.attributes.get("axis", 0) == 1:
            index = graph.tensors.get(node.inputs[1], constants.get(node.inputs[1]))
            if isinstance(index, np.ndarray) and index.size == 1 and not index.any():
                return "first"
    return "mean"


def _labels(config: Path) -> tuple[str, ...]:
    try:
        names = json.loads(config.read_text(encoding="utf-8"))["id2label"]
        return tuple(str(names[key]) for key in sorted(names, key=int))
    except (OSError, ValueError, TypeError, KeyError):
        return ()
