"""From a graph to a pure JAX function ``apply(params, *inputs)``.

The graph is interpreted while JAX traces: each node calls its entry of the op tables, under a named
scope with the node's name, so that sites read like the ONNX nodes. Tensors become

* **parameters**, under their names, if they are floating-point and more than one number, or large;
* **constants** otherwise, and wherever an operator must know the value without the data (a shape,
  the axes of a reduction): these stay NumPy, and what is computed from them and from shapes is
  folded while tracing.

Sharp edges: 64-bit integers and floats become 32-bit ones in JAX; nodes that no wanted output
depends on are left out; an ``If`` is followed only where its condition is known without the data.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.errors import ApparateError, ModelError
from apparate_jax.models.onnx.batch import rebatch
from apparate_jax.models.onnx.graph import Graph, Node, Value, all_nodes, live_nodes, reads
from apparate_jax.models.onnx.ops_conv import CONV
from apparate_jax.models.onnx.ops_math import MATH
from apparate_jax.models.onnx.ops_nn import NN
from apparate_jax.models.onnx.ops_quant import QUANT
from apparate_jax.models.onnx.ops_reduce import REDUCE
from apparate_jax.models.onnx.ops_resize import RESIZE
from apparate_jax.models.onnx.ops_shape import SHAPE
from apparate_jax.models.onnx.table import Array, Table, is_static

OPS: Table = {**MATH, **SHAPE, **REDUCE, **NN, **CONV, **RESIZE, **QUANT}
"""Every operator that is written down; ``If`` is followed by the importer itself."""

KNOWN = frozenset((*OPS, "If"))
"""Operators that need no replacing."""

LARGE = 1024
"""Integer tensors of at least so many elements are parameters too."""

_CONTROL = {"If": (0,)}  # positions of static inputs
_SHAPES_ONLY = ("Shape", "Size")

Tensor = np.ndarray[Any, Any] | jax.ShapeDtypeStruct


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """A graph as a function.

    Attributes:
        apply: ``apply(params, *inputs) -> tuple of outputs``.
        params: NumPy arrays by name; shapes where the graph does not hold the data.
        inputs: The graph's inputs that the outputs depend on, in the order that ``apply`` takes
            them.
        constants: Names of tensors that are part of the function and no parameters.
        batch: Batch size that the graph was exported for, None for any.
    """

    apply: Callable[..., tuple[jax.Array, ...]]
    params: Mapping[str, Tensor]
    inputs: tuple[Value, ...]
    constants: Collection[str]
    batch: int | None


def import_graph(graph: Graph, outputs: Sequence[str]) -> Imported:
    """Make a function of a graph.

    Args:
        graph: The graph.
        outputs: Names of the values to compute; any value of the graph will do.

    Raises:
        ModelError: Operators that are not supported (all of them are listed).
    """
    wanted = tuple(outputs)
    nodes = live_nodes(graph, wanted)
    check_ops(nodes)
    read = {name for node in nodes for name in reads(node)} | set(wanted)
    tensors = {name: value for name, value in graph.tensors.items() if name in read}
    values, remaining = _fold(nodes, tensors)
    fixed = static_names(nodes)
    params = {name: x for name, x in values.items() if name not in fixed and _is_param(x)}
    constants = {name: x for name, x in values.items() if name not in params}
    inputs = tuple(value for value in graph.inputs if value.name in read)
    batch = _fixed_batch(inputs)

    def apply(params: Mapping[str, Any], *arrays: Any) -> tuple[jax.Array, ...]:
        known: dict[str, Array] = dict(constants)
        known.update((name, jnp.asarray(params[name])) for name in held)
        known.update((v.name, jnp.asarray(x)) for v, x in zip(inputs, arrays, strict=True))
        other = batch is not None and bool(arrays) and arrays[0].shape[0] != batch
        _run(remaining, known, (batch or 0, arrays[0].shape[0]) if other else None)
        return tuple(jnp.asarray(known[name]) for name in wanted)

    held = tuple(params)
    return Imported(apply, params, inputs, frozenset(constants), batch)


def check_ops(nodes: Sequence[Node]) -> None:
    """See that every node's operator is there.

    Raises:
        ModelError: Names each missing operator with a node and its opset.
    """
    missing: dict[tuple[str, str], list[Node]] = {}
    for node in all_nodes(tuple(nodes)):
        if node.domain or not (node.op in OPS or node.op in _CONTROL):
            missing.setdefault((node.domain, node.op), []).append(node)
    if missing:
        listed = ", ".join(
            f"{found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
            for found in missing.values()
        )
        raise ModelError(
            f"{len(missing)} operators of the model are not supported: {listed}; docs/onnx.md "
            "lists those that are"
        )


def _is_param(value: Tensor) -> bool:
    if isinstance(value, jax.ShapeDtypeStruct):
        return True
    large = value.size >= LARGE and value.dtype != np.bool_
    return large or (value.size > 1 and bool(jnp.issubdtype(value.dtype, jnp.floating)))


def static_names(nodes: Sequence[Node]) -> set[str]:
    """Names of values that some operator must know without the data."""
    names: set[str] = set()
    for node in reversed([*all_nodes(tuple(nodes))]):
        places = _CONTROL.get(node.op) or OPS[node.op].static
        names.update(node.inputs[i] for i in places if i < len(node.inputs))
        if names & set(node.outputs) and node.op not in _SHAPES_ONLY:
            names.update(node.inputs)
    return names - {""}


def _fold(
    nodes: Sequence[Node], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[Node, ...]]:
    """Values that constants alone make (filled weights, shapes), and the nodes that remain."""
    values = dict(tensors)
    remaining = []
    for node in nodes:
        known = [values.get(name) for name in node.inputs if name]
        foldable = all(isinstance(x, np.ndarray) and not _is_param(x) for x in known)
        if node.op in _CONTROL or not foldable:
            remaining.append(node)
            continue
        made = dict(values)
        _run([node], made, None)
        if all(isinstance(made[name], np.ndarray) for name in node.outputs if name):
            values.update((name, made[name]) for name in node.outputs if name)
        else:
            remaining.append(node)
    return values, tuple(remaining)


def _fixed_batch(inputs: Sequence[Value]) -> int | None:
    leading = {value.shape[0] for value in inputs if value.shape}
    return next(iter(leading)) if len(leading) == 1 else None


def _run(nodes: Sequence[Node], known: dict[str, Array], batch: tuple[int, int] | None) -> None:
    """Compute nodes in order, adding what they make to the known values."""
    for node in nodes:
        values = [known[name] if name else None for name in node.inputs]
        with jax.named_scope(_scope(node)):
            if node.op in _CONTROL:
                made = _branch(node, known, batch)
            else:
                made = _call(node, values, batch)
        known.update((name, x) for name, x in zip(node.outputs, made, strict=False) if name)


def _scope(node: Node) -> str:
    return node.name.strip("/") or node.op


def _call(
    node: Node, values: Sequence[Array | None], batch: tuple[int, int] | None
) -> tuple[Array, ...]:
    op = OPS[node.op]
    unknown = [i for i in op.static if i < len(values) and not is_static(values[i])]
    if unknown:
        raise _depends_on_data(node, node.inputs[unknown[0]])
    try:
        if batch is not None:
            values = rebatch(node, values, *batch)
        with np.errstate(all="ignore"):
            made = op.run(node, *values)
    except ApparateError:
        raise
    except Exception as error:  # whatever NumPy and JAX raise for values that do not fit
        shapes = ", ".join("-" if x is None else f"{x.dtype}{list(x.shape)}" for x in values)
        raise ModelError(f"{node} does not take its inputs ({shapes}): {error}") from error
    outputs = made if isinstance(made, tuple) else (made,)
    return tuple(np.asarray(x) if isinstance(x, np.generic) else x for x in outputs)


def _branch(
    node: Node, known: dict[str, Array], batch: tuple[int, int] | None
) -> tuple[Array, ...]:
    """The outputs of the branch that an ``If`` takes."""
    condition = known[node.inputs[0]]
    if not is_static(condition):
        raise _depends_on_data(node, node.inputs[0])
    taken = node.attributes["then_branch" if bool(condition) else "else_branch"]
    inner = {**known, **taken.tensors}
    _run(taken.nodes, inner, batch)
    return tuple(inner[value.name] for value in taken.outputs)


def _depends_on_data(node: Node, name: str) -> ModelError:
    return ModelError(
        f"{node} needs the value of {name!r}, which depends on the data or on a parameter: shapes "
        "and branches must be the same for all inputs, export the model with fixed ones"
    )
