"""An ONNX graph as plain values: nodes, inputs, outputs and tensors, without protobuf.

Names are the graph's own. A value's name is computed by one node at most, and nodes stand in the
order in which they can run (the reader checks both).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call.

    Attributes:
        name: The node's own name, else that of its first output; unique enough for people.
        op: Operator type, e.g. ``"Conv"``.
        domain: Of the operator, empty for ONNX's own.
        opset: Version of the domain that the file was written for.
        inputs: Names of the values it reads; an empty name is an optional input that is left out.
        outputs: Names of the values it makes.
        attributes: Numbers, texts, tuples of them, NumPy arrays, or :class:`Graph`.
    """

    name: str
    op: str
    domain: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def subgraphs(self) -> tuple["Graph", ...]:
        """Graphs among the attributes (the branches of ``If``)."""
        return tuple(a for a in self.attributes.values() if isinstance(a, Graph))

    def __str__(self) -> str:
        kind = f"{self.domain}.{self.op}" if self.domain else self.op
        return f"{kind} (node {self.name!r}, opset {self.opset})"


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of a graph, as the file declares it.

    Attributes:
        name: Its name.
        shape: Sizes, None where the file leaves one open; None as a whole if it says nothing.
        dtype: NumPy dtype, None if the file says nothing or it is no tensor of numbers.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: np.dtype[Any] | None

    def __str__(self) -> str:
        shape = (
            "?"
            if self.shape is None
            else ", ".join("?" if n is None else str(n) for n in self.shape)
        )
        return f"{self.name} {self.dtype or '?'}[{shape}]"


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph.

    Attributes:
        nodes: In an order in which they can run.
        inputs: Without those that tensors fill.
        outputs: In the file's order.
        tensors: Initialisers by name; one whose data is kept elsewhere (in a checkpoint) is a
            ``jax.ShapeDtypeStruct``.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    tensors: Mapping[str, np.ndarray[Any, Any] | jax.ShapeDtypeStruct]


def all_nodes(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """The nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for sub in node.subgraphs:
            yield from all_nodes(sub.nodes)


def reads(node: Node) -> set[str]:
    """Names that a node reads, those that its subgraphs take from around them included."""
    names = set(node.inputs)
    for sub in node.subgraphs:
        inner = set().union(*map(reads, sub.nodes), (value.name for value in sub.outputs))
        made = {name for inside in sub.nodes for name in inside.outputs}
        names |= inner - made - set(sub.tensors) - {value.name for value in sub.inputs}
    return names - {""}


def live_nodes(graph: Graph, outputs: tuple[str, ...]) -> tuple[Node, ...]:
    """The nodes that the named values depend on, in order."""
    wanted = set(outputs)
    kept = []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            kept.append(node)
            wanted |= reads(node)
    return tuple(reversed(kept))
