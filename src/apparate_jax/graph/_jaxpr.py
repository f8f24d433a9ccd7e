"""Every contact with JAX's jaxprs that may move between releases; nothing else imports them.

JAX moves here: from 0.11.1 on ``ClosedJaxpr`` is merged into ``Jaxpr``, ``get_bind_params``
returned a pair before it returned the parameters alone, and a scan's operands are counted by
``num_consts`` and ``num_carry``, from 0.12 on by the tree ``ft_in``. The rest sees equations
(``.primitive``, ``.params``, ``.invars``, ``.outvars``, ``.effects``) and these functions.
"""

import importlib.util
import os
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.extend import core as jex
from jax.extend import source_info_util

Var = jex.Var
Literal = jex.Literal
Equation = jex.JaxprEqn
Atom = Any  # Var | Literal

# Packages that models are written with: a line in them is not the user's.
_FRAMEWORKS = (
    *("flax", "equinox", "haiku", "keras", "penzai"),
    *("jaxtyping", "beartype", "einops", "chex", "optax"),
)


def _folders(package: str) -> list[str]:
    """Folders of an installed package, which is not imported; none if it is not installed."""
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec is not None else None
    return [folder + os.sep for folder in locations or ()]


_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
_MACHINERY = (
    *(folder for package in ("jax", "jaxlib") for folder in _folders(package)),
    str(Path(__file__).parent) + os.sep,
    str(Path(__file__).parents[1] / "models" / "wrap.py"),
    "<frozen",
    "<@beartype",
)
_LIBRARIES = (*_MACHINERY, *(folder for package in _FRAMEWORKS for folder in _folders(package)))

# Equations that only call a jaxpr, and the parameter that holds it.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "custom_lin": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


def open_jaxpr(jaxpr: Any) -> tuple[Any, list[Any]]:
    """A jaxpr, open or closed, as the open one and its constants."""
    consts = list(getattr(jaxpr, "consts", ()))
    return getattr(jaxpr, "jaxpr", jaxpr), consts


def make_jaxpr(fn: Callable[..., Any], avals: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Trace ``fn`` at the given shapes: the open jaxpr and its constants."""
    return open_jaxpr(jax.make_jaxpr(fn)(*avals))


def called_jaxpr(eqn: Equation) -> Any | None:
    """The jaxpr that a call-like equation calls, or None for any other equation."""
    key = _CALLS.get(eqn.primitive.name)
    return None if key is None else eqn.params.get(key, eqn.params.get("call_jaxpr"))


def sub_jaxprs(eqn: Equation) -> list[Any]:
    """Every jaxpr among the parameters of an equation (branches, bodies, calls)."""
    return [open_jaxpr(sub)[0] for sub in jex.jaxprs_in_params(eqn.params)]


def scan_counts(eqn: Equation) -> tuple[int, int]:
    """How many operands of a ``scan`` are constants and how many its carry; the rest is scanned."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry, _ = eqn.params["ft_in"].unpack()
    return len(consts), len(carry)


def bind(eqn: Equation, args: Sequence[Any]) -> list[Any]:
    """Apply the equation's primitive to ``args``, under its own name stack and source line."""
    params: Any = eqn.primitive.get_bind_params(eqn.params)
    sub_funs: Sequence[Any] = ()
    if isinstance(params, tuple):
        sub_funs, params = params
    with source_scope(eqn), eqn.ctx.manager:
        out = eqn.primitive.bind(*sub_funs, *args, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def source_scope(eqn: Equation) -> Any:
    """Context in which traced equations carry the name stack and source line of ``eqn``."""
    stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
    # Inside of a library function the user's line is the one that called it: keep the outer one.
    traceback = eqn.source_info.traceback if own_frame(eqn) else None
    return source_info_util.user_context(traceback, name_stack=stack)


def name_stack(eqn: Equation) -> str:
    """The equation's path of named scopes, ``"Encoder/layer_0/attention"``, empty if none."""
    return str(eqn.source_info.name_stack)


def source_line(eqn: Equation) -> str:
    """The user's source line behind an equation: ``file.py:12:4 (function)``."""
    return source_info_util.summarize(eqn.source_info)


def const_vars(jaxpr: Any) -> list[Any]:
    """Variables of an open jaxpr that stand for its constants."""
    return list(jaxpr.constvars)


def own_frame(eqn: Equation) -> tuple[str, int, str] | None:
    """Innermost Python frame of the user's own code: file, line, function.

    Where there is none (a framework's own model, called by nobody else) the framework's.
    """
    found = eqn.source_info.traceback
    if found is None:
        return None
    return _users([(f.file_name, f.line_num, f.function_name) for f in found.frames])


def raised_in(error: BaseException) -> tuple[str, int, str] | None:
    """Innermost Python frame of the user's own code that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    return _users([(f.filename, f.lineno or 0, f.name) for f in reversed(frames)])


def _users(frames: Sequence[tuple[str, int, str]]) -> tuple[str, int, str] | None:
    """The first of these frames, innermost first, that is not of a library."""
    for foreign in (_LIBRARIES, _MACHINERY):
        for frame in frames:
            if not frame[0].startswith(foreign) and not _is_standard_library(frame[0]):
                return frame
    return None


def _is_standard_library(file: str) -> bool:
    return file.startswith(_STDLIB) and "site-packages" not in file
