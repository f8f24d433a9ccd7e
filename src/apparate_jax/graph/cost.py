"""Floating-point operations of an equation, as a device-free measure of where the work is.

Matrix products and convolutions are counted exactly, reductions by their operand, everything else
by the elements it writes. Costs order and space the sites before anything has been measured;
decisions that depend on time use the measured profile instead.
"""

import math
from typing import Any

from apparate_jax.graph import _jaxpr

Shape = tuple[int, ...]

# Equations that only move or relabel data; XLA fuses or aliases them.
FREE = frozenset(
    {
        "reshape",
        "squeeze",
        "expand_dims",
        "broadcast_in_dim",
        "convert_element_type",
        "bitcast_convert_type",
        "copy",
        "copy_p",
        "stop_gradient",
        "transpose",
        "slice",
        "iota",
        "rev",
        "pad",
        "concatenate",
        "gather",
        "dynamic_slice",
        "optimization_barrier",
        "sharding_constraint",
    }
)


def shape_of(atom: Any) -> Shape:
    """Shape of a variable or literal; ``()`` for tokens."""
    return tuple(getattr(atom.aval, "shape", ()))


def size_bytes(atom: Any) -> int:
    """Bytes that a variable takes."""
    dtype = getattr(atom.aval, "dtype", None)
    return math.prod(shape_of(atom)) * (getattr(dtype, "itemsize", 4) if dtype is not None else 0)


def _dot_flops(eqn: Any) -> float:
    (lhs_contract, _), _ = eqn.params["dimension_numbers"]
    lhs = shape_of(eqn.invars[0])
    contracted = math.prod(lhs[d] for d in lhs_contract)
    return 2.0 * math.prod(shape_of(eqn.outvars[0])) * float(contracted)


def _conv_flops(eqn: Any) -> float:
    kernel = shape_of(eqn.invars[1])
    out_channel_dim = eqn.params["dimension_numbers"].rhs_spec[0]
    per_output: float = math.prod(kernel) / kernel[out_channel_dim]
    return 2.0 * math.prod(shape_of(eqn.outvars[0])) * per_output


def _nested_flops(eqn: Any) -> float:
    bodies = [sum(map(flops, body.eqns)) for body in _jaxpr.sub_jaxprs(eqn)]
    if eqn.primitive.name == "cond":
        return max(bodies, default=0.0)
    return float(eqn.params.get("length", 1)) * sum(bodies)


def flops(eqn: Any) -> float:
    """Floating-point operations of one equation, bodies of control flow included."""
    name = eqn.primitive.name
    if name == "dot_general":
        return _dot_flops(eqn)
    if name == "conv_general_dilated":
        return _conv_flops(eqn)
    if name in FREE:
        return 0.0
    if _jaxpr.sub_jaxprs(eqn) and not name.startswith(("reduce", "argm", "scatter", "sort")):
        return _nested_flops(eqn)
    if name.startswith(("reduce", "argm", "cum", "sort")):
        return float(max((math.prod(shape_of(v)) for v in eqn.invars), default=0))
    return float(max((math.prod(shape_of(v)) for v in eqn.outvars), default=0))


def is_heavy(eqn: Any) -> bool:
    """Whether an equation is a matrix product, a convolution, or control flow around one."""
    if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
        return True
    return any(is_heavy(inner) for body in _jaxpr.sub_jaxprs(eqn) for inner in body.eqns)
