"""Run a graph that was exported for one batch size at others.

Such graphs write their batch size into the shapes of ``Reshape`` and into constants that they join
to values. The graph's own size is replaced by that of the call where the batch is the leading axis,
or the leading part of it (``[batch * heads, ...]``): rows stay rows. Whether that holds cannot be
seen from shapes alone, so the classifier compares the two on examples before it accepts a graph.
"""

import math
from collections.abc import Sequence

import numpy as np

from apparate_jax.models.onnx.graph import Node
from apparate_jax.models.onnx.table import Array, ints, is_static, xp


def rebatch(node: Node, values: Sequence[Array | None], own: int, batch: int) -> list[Array | None]:
    """Inputs of a node for another batch size than the graph's own.

    Args:
        node: A node.
        values: Its inputs.
        own: Batch size of the graph.
        batch: Batch size of this call.
    """
    changed = list(values)
    if node.op == "Reshape" and values[0] is not None and not is_static(values[0]):
        shape = _scaled(values[0].shape, ints(values[1]), own, batch)
        changed[1] = np.asarray(shape, np.int64)
    if node.op == "Concat" and own == 1 and node.attributes["axis"] != 0:
        leading = {x.shape[0] for x in values if x is not None}
        if leading == {own, batch}:
            changed = [
                xp(x).broadcast_to(x, (batch, *x.shape[1:])) if x is not None else None
                for x in values
            ]
    return changed


def _scaled(
    shape: tuple[int, ...], wanted: tuple[int, ...], own: int, batch: int
) -> tuple[int, ...]:
    """The wanted shape with as many rows as a value of another batch size has."""
    if not shape or not wanted or wanted[0] < 1:
        return wanted
    if shape[0] == batch and wanted[0] == own:
        return batch, *wanted[1:]
    sizes = [shape[i] if size == 0 and i < len(shape) else size for i, size in enumerate(wanted)]
    if min(sizes) > 0 and math.prod(shape) * own == math.prod(sizes) * batch:
        return wanted[0] * batch // own, *wanted[1:]
    return wanted
