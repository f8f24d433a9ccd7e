"""Random programs over one or two inputs, as functions and as networkx graphs, for property tests.

Every operation is one equation, made under the scope ``n<its index>``, so that what the graph
analysis finds in the jaxpr can be named in the networkx graph, which never saw the jaxpr.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import networkx as nx
import numpy as np
from hypothesis import strategies as st
from jax import lax

from apparate_jax.graph import _jaxpr
from apparate_jax.graph.flow import Flow, build_flow
from apparate_jax.graph.inline import inline

BATCH, WIDTH, CLASSES = 4, 64, 3
OUT = "out"


class Op(NamedTuple):
    """One operation: ``args`` are indices of operations, or ``-1`` and ``-2`` for the inputs."""

    kind: str
    args: tuple[int, ...]


@dataclass(frozen=True)
class RandomProgram:
    """Operations in execution order; the logits are one more product with the last of them."""

    ops: tuple[Op, ...]

    @property
    def widths(self) -> dict[int, int]:
        widths = {-1: WIDTH, -2: WIDTH}
        for i, op in enumerate(self.ops):
            widths[i] = 2 * WIDTH if op.kind == "concat" else WIDTH
            if op.kind == "tanh":
                widths[i] = widths[op.args[0]]
        return widths

    @property
    def params(self) -> list[np.ndarray]:
        """One array an operation (used by ``dense`` and ``scale`` only), then the last product."""
        rng = np.random.default_rng(0)
        widths = self.widths
        shapes = [
            (widths[op.args[0]], WIDTH) if op.kind == "dense" else (WIDTH,) for op in self.ops
        ]
        shapes.append((widths[len(self.ops) - 1], CLASSES))
        return [rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32) for shape in shapes]

    @property
    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(1)
        return tuple(rng.normal(size=(BATCH, WIDTH)).astype(np.float32) for _ in range(2))

    def __call__(self, params: Any, first: Any, second: Any) -> Any:
        values = {-1: first, -2: second}
        for i, op in enumerate(self.ops):
            with jax.named_scope(f"n{i}"):
                values[i] = _apply(op.kind, [values[a] for a in op.args], params[i])
        with jax.named_scope(OUT):
            return lax.dot(values[len(self.ops) - 1], params[-1])

    def hot_graph(self) -> nx.DiGraph:
        """The operations that depend on an input and on a parameter, and that the logits need."""
        graph = nx.DiGraph()
        for i, op in enumerate(self.ops):
            graph.add_edges_from((f"n{a}" if a >= 0 else f"x{a}", f"n{i}") for a in op.args)
            if op.kind in ("dense", "scale"):
                graph.add_edge(f"p{i}", f"n{i}")
        graph.add_edges_from([(f"n{len(self.ops) - 1}", OUT), ("p", OUT)])
        needed = nx.ancestors(graph, OUT) | {OUT}

        def is_hot(node: str) -> bool:
            above = {name[0] for name in nx.ancestors(graph, node)}
            return node[0] in "no" and {"x", "p"} <= above

        return graph.subgraph([node for node in graph if node in needed and is_hot(node)]).copy()


def _apply(kind: str, args: list[Any], param: Any) -> Any:
    match kind:
        case "dense":
            return lax.dot(args[0], param)
        case "scale":
            return args[0] * param
        case "tanh":
            return lax.tanh(args[0])
        case "add":
            return lax.add(*args)
        case "mul":
            return lax.mul(*args)
        case "concat":
            return lax.concatenate(args, 1)
    raise AssertionError(kind)


@st.composite
def random_programs(draw: Any, one_source: bool = False, size: int = 14) -> RandomProgram:
    """Residual and branching programs.

    Args:
        draw: Given by hypothesis.
        one_source: Read the inputs once only, at the start: all hot values spring from there.
        size: Most operations.
    """
    ops = [Op("dense", (-1,))]
    widths = {-1: WIDTH, -2: WIDTH, 0: WIDTH}
    for i in range(1, draw(st.integers(2, size))):
        lowest = 0 if one_source else -2
        # Mostly the last few values: far jumps alone would leave no cut vertex anywhere.
        near = st.integers(max(i - 3, lowest), i - 1)
        value = st.one_of(near, near, near, st.integers(lowest, i - 1))
        single = value.filter(lambda a: widths[a] == WIDTH)
        kind = draw(st.sampled_from(["dense", "dense", "tanh", "scale", "add", "mul", "concat"]))
        if kind in ("dense", "tanh"):
            args = (draw(value),)
        elif kind == "scale":
            args = (draw(single),)
        else:
            args = (draw(single), draw(single))
        ops.append(Op(kind, args))
        widths[i] = RandomProgram(tuple(ops)).widths[i]
    return RandomProgram(tuple(ops))


def flow_of(fn: Any, params: Any, *inputs: Any) -> Flow:
    """The flow of ``fn(params, *inputs)``, without the checks and the grouping of ``trace``."""
    leaves, treedef = jax.tree.flatten(params)

    def flat(*args: Any) -> Any:
        return fn(jax.tree.unflatten(treedef, args[: len(leaves)]), *args[len(leaves) :])

    jaxpr, consts = _jaxpr.make_jaxpr(flat, [*leaves, *inputs])
    inlined, _ = inline(jaxpr, consts, len(leaves))
    return build_flow(inlined, len(consts), len(leaves))


def scope(eqn: Any) -> str:
    """The outermost scope under which an equation was made."""
    return _jaxpr.name_stack(eqn).split("/")[0]
