"""What a function must be to be served, checked where it is traced, with errors that help.

A graph error shows the equation and the user's own source line, because the model that fails was
written by somebody who never saw a jaxpr.
"""

import itertools
import os
from collections.abc import Sequence
from typing import Any

import jax

from apparate_jax.errors import GraphError
from apparate_jax.graph import _jaxpr, cost
from apparate_jax.graph.cuts import cut_vertices, stretches, widest_span
from apparate_jax.graph.flow import Flow, Kind
from apparate_jax.graph.names import user_line


def shape_struct(value: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array-like as JAX holds it (``int64`` is ``int32`` there)."""
    if isinstance(value, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(value.shape, jax.dtypes.canonicalize_dtype(value.dtype))
    aval = jax.typeof(value)
    weak = bool(getattr(aval, "weak_type", False))
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=weak)


def input_shapes(example_inputs: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    """Shapes of the example inputs, all with the same leading batch axis.

    Raises:
        GraphError: If there is no input, one has no axis, or leading axes differ.
    """
    if not example_inputs:
        raise GraphError(
            "no example inputs: give at least one array whose leading axis is the batch"
        )
    for i, value in enumerate(example_inputs):
        if not (hasattr(value, "dtype") and hasattr(value, "shape")):
            raise GraphError(
                f"input {i} is a {type(value).__name__}, expected one array per input: "
                "unpack it, trace(lambda params, a, b: fn(params, {'a': a, 'b': b}), params, a, b)"
            )
    shapes = [shape_struct(x) for x in example_inputs]
    leading = [s.shape[0] if s.shape else None for s in shapes]
    if None in leading or len(set(leading)) != 1:
        listed = ", ".join(f"{s.dtype}{list(s.shape)}" for s in shapes)
        raise GraphError(
            f"the inputs are {listed}: expected the same leading axis, the batch, in each of them; "
            "move what is not per example into the parameters"
        )
    return shapes


def parameters(leaves: Sequence[Any]) -> None:
    """Check that every parameter leaf is an array.

    Raises:
        GraphError: Names the type of the first leaf that is none.
    """
    for leaf in leaves:
        if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")) and not isinstance(
            leaf, bool | int | float | complex
        ):
            raise GraphError(
                f"a parameter is a {type(leaf).__name__}, expected arrays: keep what is no array "
                "out of params (close over it, or use functools.partial)"
            )


def logits(result: Any, batch: int) -> Any:
    """The traced function's result, checked to be one array of logits ``f[batch, classes]``.

    Raises:
        GraphError: Several outputs, no array, another rank, another leading axis, no floats.
    """
    leaves = jax.tree.leaves(result)
    if len(leaves) != 1:
        outputs = [(jax.tree_util.keystr(k), v) for k, v in jax.tree.leaves_with_path(result)]
        listed = ", ".join(f"{key} {_describe(value)}" for key, value in outputs) or "None"
        raise GraphError(
            f"the function returned {len(leaves)} outputs ({listed}), expected one array of "
            f"logits f[batch, classes]: wrap it, lambda params, x: fn(params, x){_likely(outputs)}"
        )
    (out,) = leaves
    shape = tuple(getattr(out, "shape", ()))
    if shape in ((batch,), (batch, 1)) and jax.numpy.issubdtype(out.dtype, jax.numpy.floating):
        join = "stack" if len(shape) == 1 else "concatenate"
        raise GraphError(
            f"the function returned {_describe(out)}, one score for each input, expected logits "
            f"[{batch}, classes] of at least 2 classes: of a score z before the sigmoid make both, "
            f"jnp.{join}([0 * z, z], axis=1)"
        )
    if len(shape) != 2 or shape[0] != batch or shape[1] < 2:
        raise GraphError(
            f"the function returned {_describe(out)}, expected logits [{batch}, classes] "
            f"(batch {batch} is the inputs' leading axis, classes at least 2): "
            "move the batch to the front, or pool what is left of other axes"
        )
    if not jax.numpy.issubdtype(out.dtype, jax.numpy.floating):
        raise GraphError(
            f"the function returned {_describe(out)}, expected floating-point logits: "
            "return the scores, not their argmax"
        )
    return out


def _likely(outputs: Sequence[tuple[str, Any]]) -> str:
    """The key of the output that is named like logits, else of the first one."""
    named = (key for key, _ in outputs if "logit" in key.lower())
    return next(named, outputs[0][0] if outputs else "[0]")


def _describe(value: Any) -> str:
    if hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__


def effects(jaxpr: Any) -> None:
    """Refuse side effects: a stage may run in any plan, so nothing may depend on being run.

    Raises:
        GraphError: Shows the equation and the source line of the first effect.
    """
    eqn = _first_effect(jaxpr)
    if eqn is not None:
        raise GraphError(
            f"the model has a side effect, {eqn.primitive.name} at {_show(eqn)}\n"
            "expected a pure function: remove the callback or print from the forward pass"
        )


def explain_failure(error: Exception, shapes: Sequence[jax.ShapeDtypeStruct]) -> str:
    """What the user's function raised when it was traced, and where."""
    frame = _jaxpr.raised_in(error)
    where = "" if frame is None else f" at {os.path.basename(frame[0])}:{frame[1]} ({frame[2]})"
    given = ", ".join(f"{s.dtype}{list(s.shape)}" for s in shapes)
    told = str(error).strip().splitlines() or [""]
    return (
        f"the model raised {type(error).__name__}{where} when it was traced with inputs {given}: "
        f"{told[0]}\nexpected fn(params, *inputs) -> logits to work on such inputs: see that "
        "their shapes and dtypes are the model's, and that the parameters are its own"
    )


def _first_effect(jaxpr: Any) -> Any | None:
    for eqn in jaxpr.eqns:
        if not eqn.effects:
            continue
        inner = [_first_effect(sub) for sub in _jaxpr.sub_jaxprs(eqn)]
        return next((e for e in inner if e is not None), eqn)
    return None


def explain_no_cut(flow: Flow, batch: int) -> str:
    """Why there is no site: a folded batch, a single layer, or the value that jumps over all."""
    if flow.kind(flow.out) is not Kind.HOT:
        return (
            "the logits do not depend on both the inputs and the parameters: nothing to exit from"
        )
    between = list(itertools.chain(*stretches(cut_vertices(flow), flow)))
    if between:
        shapes = dict.fromkeys(f"{c.var.aval.dtype}{list(cost.shape_of(c.var))}" for c in between)
        return (
            f"the model has {len(between)} cut vertices between its layers, but none is "
            f"floating-point with the batch ({batch}) as leading axis (they are "
            f"{', '.join(itertools.islice(shapes, 4))}); the last one is computed at "
            f"{_show(flow.online[between[-1].eqn_index])}\n"
            "a ramp needs f[batch, ...]: keep the batch in front"
        )
    layers = [eqn for eqn in flow.online if cost.is_heavy(eqn)]
    if len(layers) == 1:
        return (
            f"the model is a single layer, at {_show(layers[0])}\n"
            "a ramp needs a value after the first and before the last layer"
        )
    eqn = widest_span(flow)
    assert eqn is not None  # hot logits have a hot equation
    return (
        "the model has no cut vertex: a value is used again so late that it jumps over every "
        f"candidate; it is computed at {_show(eqn)}\n"
        "a ramp needs a place that all of the computation passes through"
    )


def _show(eqn: Any) -> str:
    """The user's source line and, on a line of its own, the equation."""
    return f"{user_line(eqn)}:\n  {_one_line(eqn)}"


def _one_line(eqn: Any) -> str:
    text = " ".join(str(eqn).split())
    return text if len(text) <= 200 else text[:197] + "..."
