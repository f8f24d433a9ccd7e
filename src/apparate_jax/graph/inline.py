"""Flatten a jaxpr: inline calls, unroll scans over layers.

The jaxpr is interpreted once more under ``make_jaxpr``. Equations that merely call (jit, remat,
custom derivatives, closed calls) are replaced by what they call; a ``scan`` whose scanned values do
not depend on the model's inputs is a loop over layers and becomes its steps, so that the carry
between steps can be a cut vertex. A scan over time (scanned values depend on inputs) stays one
equation. Name stacks and source lines of the inner equations are kept.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax import lax

from apparate_jax.graph import _jaxpr

MAX_UNROLLED_STEPS = 256
"""A longer scan stays one equation: unrolling it would cost more to compile than it is worth."""


class Tagged(NamedTuple):
    """A traced value and whether it depends on the model's inputs."""

    value: Any
    from_input: bool


def _unrolls(eqn: Any, args: Sequence[Tagged]) -> bool:
    if eqn.primitive.name != "scan" or not 1 <= eqn.params["length"] <= MAX_UNROLLED_STEPS:
        return False
    return not any(arg.from_input for arg in args[sum(_jaxpr.scan_counts(eqn)) :])


def _unroll_scan(eqn: Any, args: Sequence[Tagged]) -> list[Tagged]:
    body, body_consts = _jaxpr.open_jaxpr(eqn.params["jaxpr"])
    n_consts, n_carry = _jaxpr.scan_counts(eqn)
    length = eqn.params["length"]
    consts, carry = list(args[:n_consts]), list(args[n_consts : n_consts + n_carry])
    scanned = args[n_consts + n_carry :]
    steps = range(length - 1, -1, -1) if eqn.params["reverse"] else range(length)
    stacked: dict[int, list[Tagged]] = {}
    for step in steps:
        xs = [Tagged(lax.index_in_dim(x.value, step, 0, False), x.from_input) for x in scanned]
        out = inline_eval(body, body_consts, [*consts, *carry, *xs])
        carry, stacked[step] = out[:n_carry], out[n_carry:]
    rows = [stacked[step] for step in range(length)]
    columns = zip(*rows, strict=True)
    ys = [
        Tagged(jax.numpy.stack([y.value for y in column]), any(y.from_input for y in column))
        for column in columns
    ]
    return [*carry, *ys]


def inline_eval(jaxpr: Any, consts: Sequence[Any], args: Sequence[Tagged]) -> list[Tagged]:
    """Interpret an open jaxpr on tagged values, recursing into calls and layer scans."""
    env: dict[Any, Tagged] = {}

    def read(atom: Any) -> Tagged:
        if isinstance(atom, _jaxpr.Literal):
            return Tagged(atom.val, False)
        return env[atom]

    env.update(zip(_jaxpr.const_vars(jaxpr), (Tagged(c, False) for c in consts), strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        tagged = [read(v) for v in eqn.invars]
        called = _jaxpr.called_jaxpr(eqn)
        if called is not None:
            with _jaxpr.source_scope(eqn):
                inner, inner_consts = _jaxpr.open_jaxpr(called)
                out = inline_eval(inner, inner_consts, tagged)
        elif _unrolls(eqn, tagged):
            with _jaxpr.source_scope(eqn):
                out = _unroll_scan(eqn, tagged)
        else:
            from_input = any(t.from_input for t in tagged)
            values = _jaxpr.bind(eqn, [t.value for t in tagged])
            out = [Tagged(value, from_input) for value in values]
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def inline(jaxpr: Any, consts: Sequence[Any], num_params: int) -> tuple[Any, list[Any]]:
    """The flat jaxpr of ``jaxpr``, with its constants as leading arguments.

    Args:
        jaxpr: Open jaxpr with ``num_params`` parameter leaves before the inputs.
        consts: Values of its constants.
        num_params: How many of its arguments are parameters.

    Returns:
        An open jaxpr whose arguments are ``[*consts, *params, *inputs]``, and its own constants
        (empty unless JAX had to lift one).
    """
    avals = [
        jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=v.aval.weak_type)
        for v in jaxpr.invars
    ]
    const_avals = [jax.typeof(c) for c in consts]
    num_consts = len(consts)

    def flat(*args: Any) -> list[Any]:
        static = num_consts + num_params
        tagged = [Tagged(a, i >= static) for i, a in enumerate(args)]
        return [t.value for t in inline_eval(jaxpr, args[:num_consts], tagged[num_consts:])]

    const_structs = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=getattr(a, "weak_type", False))
        for a in const_avals
    ]
    return _jaxpr.make_jaxpr(flat, [*const_structs, *avals])
