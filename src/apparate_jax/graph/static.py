"""Static values: everything that depends on parameters and constants only, computed once.

A cast, a folded batch norm, one layer's slice of stacked parameters: the equations are run when the
first stage asks for them and never again. Programs of the same model at other batch sizes share the
results, recognised by what computes them rather than by variable.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from apparate_jax.graph import _jaxpr
from apparate_jax.graph.flow import Flow, live_equations
from apparate_jax.graph.stages import compiler_options, eval_equations


class StaticValues:
    """Values of static variables of one model, shared by its programs at all batch sizes.

    Thread-safe: the engine asks for stages from a background compiler too.
    """

    def __init__(self) -> None:
        self._values: dict[str, jax.Array] = {}
        self._lock = threading.Lock()

    def get(
        self, flow: Flow, leaves: Mapping[Any, Any], wanted: Sequence[Any]
    ) -> tuple[jax.Array, ...]:
        """Values of ``wanted``, computed on first use.

        Args:
            flow: The computation that the variables belong to.
            leaves: Value of each parameter and constant variable.
            wanted: Static variables.
        """
        derived = [v for v in wanted if v not in leaves]
        if not derived:
            return tuple(leaves[v] for v in wanted)
        keys = _structural_keys(flow, leaves, derived)
        with self._lock:
            missing = [v for v in derived if keys[v] not in self._values]
            if missing:
                computed = _evaluate(flow, leaves, missing)
                self._values.update(
                    (keys[v], value) for v, value in zip(missing, computed, strict=True)
                )
            return tuple(leaves[v] if v in leaves else self._values[keys[v]] for v in wanted)


def _evaluate(flow: Flow, leaves: Mapping[Any, Any], wanted: Sequence[Any]) -> tuple[Any, ...]:
    eqns = live_equations(flow.eqns, *wanted)
    names = list(leaves)

    def compute(values: Sequence[Any]) -> tuple[jax.Array, ...]:
        return eval_equations(eqns, dict(zip(names, values, strict=True)), wanted)

    compiled = jax.jit(compute, compiler_options=compiler_options(flow) or None)
    values: tuple[jax.Array, ...] = compiled([leaves[v] for v in names])
    return values


def _structural_keys(
    flow: Flow, leaves: Mapping[Any, Any], wanted: Sequence[Any]
) -> dict[Any, str]:
    """A key per variable that is equal for equal computations of the same leaves."""
    eqns = live_equations(flow.eqns, *wanted)
    read = {v for eqn in eqns for v in eqn.invars if not isinstance(v, _jaxpr.Literal)}
    keys: dict[Any, str] = {var: f"param {i}" for i, var in enumerate(flow.params)}
    # A constant may be made anew, or be another one, in each trace: only its content tells.
    keys.update((var, _content(leaves[var])) for var in flow.consts if var in read)
    for eqn in eqns:
        operands = ",".join(
            f"{v.val!r}:{v.aval}" if isinstance(v, _jaxpr.Literal) else keys[v] for v in eqn.invars
        )
        call = f"{eqn.primitive.name}[{sorted(eqn.params.items(), key=str)}]({operands})"
        keys.update((v, f"{hash(call):x}.{len(call)}.{i}") for i, v in enumerate(eqn.outvars))
    return keys


def _content(value: jax.Array) -> str:
    is_key = jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
    raw = np.asarray(jax.random.key_data(value) if is_key else value)
    return f"const {value.dtype}{value.shape} {hashlib.blake2b(raw.tobytes()).hexdigest()}"
