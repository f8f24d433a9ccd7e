"""The data-flow graph of a flattened computation: what depends on what, and what is still alive.

Every value is one of three kinds:

* **static**: depends on parameters and constants only; computed once at load;
* **cold**: depends on inputs but on no parameter (an attention mask); cheap, so each stage that
  wants it computes it again;
* **hot**: depends on both. Only hot values can carry the computation over a cut.

Constants captured by the function count as parameters where real work (a matrix product, a
convolution) is done with them, so weights that were closed over behave like weights that were
passed, while a captured causal mask does not jump over every cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from apparate_jax.graph import _jaxpr
from apparate_jax.graph.cost import flops, is_heavy


class Kind(Enum):
    """How a value depends on parameters and inputs."""

    STATIC = "static"
    COLD = "cold"
    HOT = "hot"


@dataclass(frozen=True, slots=True)
class Flow:
    """A flat, dead-code-free computation with the kind of every value.

    Attributes:
        eqns: Live equations in execution order.
        consts: Variables of captured constants.
        params: Variables of parameter leaves.
        inputs: Variables of the model's inputs.
        out: The atom that holds the logits.
        kinds: Kind of each variable.
        online: The equations that depend on the inputs, in order.
        total_flops: Floating-point operations of one call, static work excluded.
    """

    eqns: tuple[Any, ...]
    consts: tuple[Any, ...]
    params: tuple[Any, ...]
    inputs: tuple[Any, ...]
    out: Any
    kinds: Mapping[Any, Kind]
    online: tuple[Any, ...]
    total_flops: float

    def kind(self, atom: Any) -> Kind:
        """Kind of a variable; literals are static."""
        return Kind.STATIC if isinstance(atom, _jaxpr.Literal) else self.kinds[atom]


def live_equations(eqns: Sequence[Any], *outs: Any) -> tuple[Any, ...]:
    """The equations that ``outs`` need, in order (dead code removed)."""
    needed = set(outs)
    kept = []
    for eqn in reversed(eqns):
        if needed.isdisjoint(eqn.outvars):
            continue
        kept.append(eqn)
        needed.update(v for v in eqn.invars if not isinstance(v, _jaxpr.Literal))
    return tuple(reversed(kept))


def _classify(
    eqns: Sequence[Any], consts: Sequence[Any], params: Sequence[Any], inputs: Sequence[Any]
) -> dict[Any, Kind]:
    kinds: dict[Any, Kind] = dict.fromkeys((*consts, *params), Kind.STATIC)
    kinds.update(dict.fromkeys(inputs, Kind.COLD))
    of_params = set(params)
    for eqn in eqns:
        operands = [v for v in eqn.invars if not isinstance(v, _jaxpr.Literal)]
        operand_kinds = {kinds[v] for v in operands}
        has_param = any(v in of_params for v in operands)
        static_weights = any(kinds[v] is Kind.STATIC for v in operands) and is_heavy(eqn)
        if operand_kinds <= {Kind.STATIC}:
            kind = Kind.STATIC
            if has_param:
                of_params.update(eqn.outvars)
        elif Kind.HOT in operand_kinds or has_param or static_weights:
            kind = Kind.HOT
        else:
            kind = Kind.COLD
        kinds.update(dict.fromkeys(eqn.outvars, kind))
    return kinds


def build_flow(jaxpr: Any, num_consts: int, num_params: int) -> Flow:
    """Analyse a flat jaxpr whose arguments are ``[*consts, *params, *inputs]``.

    Args:
        jaxpr: Flat open jaxpr with one output; its own constants count as captured ones.
        num_consts: How many of its arguments are captured constants.
        num_params: How many of its arguments are parameter leaves.
    """
    lifted = _jaxpr.const_vars(jaxpr)
    consts = (*lifted, *jaxpr.invars[:num_consts])
    params = tuple(jaxpr.invars[num_consts : num_consts + num_params])
    inputs = tuple(jaxpr.invars[num_consts + num_params :])
    eqns = live_equations(jaxpr.eqns, jaxpr.outvars[0])
    kinds = _classify(eqns, consts, params, inputs)
    online = tuple(e for e in eqns if kinds[e.outvars[0]] is not Kind.STATIC)
    total = sum(map(flops, online))
    return Flow(eqns, consts, params, inputs, jaxpr.outvars[0], kinds, online, total)


def last_uses(eqns: Sequence[Any], out: Any) -> dict[Any, int]:
    """Index of the last equation that reads each variable, ``len(eqns)`` for ``out``."""
    last: dict[Any, int] = {}
    for i, eqn in enumerate(eqns):
        last.update((v, i) for v in eqn.invars if not isinstance(v, _jaxpr.Literal))
    last[out] = len(eqns)
    return last
