"""Stages: the program between two neighbouring sites, as a function of the cut and the inputs.

A stage keeps the equations that its output needs and that come after its incoming cut. Cold values
(masks) are computed again from the inputs. Static values are not: they come in as constants that
were computed once (:mod:`apparate_jax.graph.static`). Recomposing the stages of any set of cuts
gives exactly the monolithic program's equations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from apparate_jax.graph import _jaxpr
from apparate_jax.graph.cost import shape_of, size_bytes
from apparate_jax.graph.flow import Flow, Kind

# Static equations that only relabel or enlarge their operand stay in the stage: XLA aliases or
# fuses them, while materialised they would take memory and bandwidth. A transpose belongs to them:
# XLA folds it into the product that reads it, and another layout of that product's operand may sum
# in another order. A cast is not among them: it would be done again on every call.
_RELABELLING = frozenset({"reshape", "squeeze", "expand_dims", "transpose"})
_ENLARGING = frozenset({"broadcast_in_dim", "iota"})
# XLA turns a division by one of these into a multiplication (``x / sqrt(v)`` into ``x * rsqrt(v)``)
# if it sees both: kept together, they round as they do in the whole model.
_MERGED_DIVISORS = frozenset({"sqrt", "rsqrt", "exp", "pow", "integer_pow", "div"})


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class StageBody:
    """The equations of one stage and what they read.

    It is shown without them: ``jax.jit`` asks a callable that is no function for its text, where
    hundreds of equations take long and a ``KeyboardInterrupt`` gets lost.

    Attributes:
        eqns: Equations in execution order.
        statics: Static variables that the stage takes as constants, in argument order.
        carry_in: The incoming cut, None for the first stage.
        inputs: Variables of the model's inputs.
        outs: The values that the stage returns.
    """

    eqns: tuple[Any, ...]
    statics: tuple[Any, ...]
    carry_in: Any | None
    inputs: tuple[Any, ...]
    outs: tuple[Any, ...]

    def __call__(
        self, statics: Sequence[jax.Array], carry: jax.Array | None, *inputs: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Evaluate the stage: constants as :attr:`statics` lists them, the cut, all inputs."""
        env: dict[Any, Any] = dict(zip(self.statics, statics, strict=True))
        env.update(zip(self.inputs, inputs, strict=True))
        if self.carry_in is not None:
            env[self.carry_in] = carry
        return eval_equations(self.eqns, env, self.outs)

    @property
    def static_bytes(self) -> int:
        """Bytes of the constants that the stage holds."""
        return sum(map(size_bytes, self.statics))


def eval_equations(
    eqns: Sequence[Any], env: dict[Any, Any], outs: Sequence[Any]
) -> tuple[jax.Array, ...]:
    """Evaluate equations in order on ``env`` (variable to value) and read ``outs``."""

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, _jaxpr.Literal) else env[atom]

    for eqn in eqns:
        env.update(zip(eqn.outvars, _jaxpr.bind(eqn, [read(v) for v in eqn.invars]), strict=True))
    return tuple(jax.numpy.asarray(read(v)) for v in outs)


def _relabels_or_enlarges(eqn: Any) -> bool:
    if eqn.primitive.name in _RELABELLING:
        return True
    operands = sum(size_bytes(v) for v in eqn.invars if not isinstance(v, _jaxpr.Literal))
    return eqn.primitive.name in _ENLARGING and sum(map(size_bytes, eqn.outvars)) >= operands


def _merged_divisors(flow: Flow, producer: Mapping[Any, Any]) -> set[Any]:
    """Static variables by which online equations divide, merged with the division by XLA."""
    merged = set()
    for eqn in flow.online:
        divisor = eqn.invars[1] if eqn.primitive.name == "div" else None
        made_by = None if isinstance(divisor, _jaxpr.Literal) else producer.get(divisor)
        while made_by is not None and _relabels_or_enlarges(made_by):
            divisor = made_by.invars[0] if made_by.invars else None
            made_by = None if isinstance(divisor, _jaxpr.Literal) else producer.get(divisor)
        if made_by is not None and made_by.primitive.name in _MERGED_DIVISORS:
            merged.add(divisor)
    return merged


def stage_body(
    flow: Flow, producer: Mapping[Any, Any], carry_in: Any | None, outs: Sequence[Any]
) -> StageBody:
    """The stage that computes ``outs`` from the cut ``carry_in`` and the inputs.

    Args:
        flow: The whole computation.
        producer: Equation that computes each variable.
        carry_in: Variable of the incoming cut, None to start at the inputs.
        outs: Variables (or literals) to return.

    Walks backwards; static values become constants unless they merely relabel or enlarge their
    operand, or belong to a division.
    """
    order = {id(eqn): i for i, eqn in enumerate(flow.eqns)}
    divisors = _merged_divisors(flow, producer)
    kept: dict[int, Any] = {}
    statics: dict[Any, None] = {}
    done: set[Any] = {carry_in, *flow.inputs}
    stack = [v for v in outs if not isinstance(v, _jaxpr.Literal)]
    while stack:
        var = stack.pop()
        if var in done:
            continue
        done.add(var)
        eqn = producer.get(var)
        stays = eqn is not None and (var in divisors or _relabels_or_enlarges(eqn))
        if eqn is None or (flow.kinds[var] is Kind.STATIC and not stays):
            statics[var] = None
            continue
        kept[order[id(eqn)]] = eqn
        stack.extend(v for v in eqn.invars if not isinstance(v, _jaxpr.Literal))
    eqns = tuple(kept[i] for i in sorted(kept))
    used_first = _by_first_use(eqns, statics)
    return StageBody(eqns, used_first, carry_in, flow.inputs, tuple(outs))


def _by_first_use(eqns: Sequence[Any], statics: Mapping[Any, None]) -> tuple[Any, ...]:
    """Constants in the order in which the stage reads them: equal layers get equal programs."""
    seen: dict[Any, None] = {}
    for eqn in eqns:
        seen.update((v, None) for v in eqn.invars if not isinstance(v, _jaxpr.Literal))
    ordered = [v for v in seen if v in statics]
    return (*ordered, *(v for v in statics if v not in seen))


def compiler_options(flow: Flow) -> dict[str, bool]:
    """XLA options under which a stage rounds where the model does; none in single precision.

    Of half-precision values XLA may keep the single-precision ones where it fuses what makes them
    with what reads them (excess precision). At a cut it cannot, so without these options another
    set of cuts would give other logits, by a rounding or two.
    """
    dtypes = {getattr(v.aval, "dtype", None) for eqn in flow.eqns for v in eqn.outvars}
    narrow = any(
        jax.numpy.issubdtype(dtype, jax.numpy.floating) and dtype.itemsize < 4
        for dtype in dtypes
        if dtype is not None
    )
    return {"xla_allow_excess_precision": False} if narrow else {}


def carry_shape(var: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a cut."""
    return jax.ShapeDtypeStruct(shape_of(var), var.aval.dtype)
