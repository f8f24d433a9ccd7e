"""Names of sites for people: the module path where there is one, else the user's source line.

Flax Linen (and ``jax.named_scope``) leave a path on every equation's name stack. The value after an
activation often sits in the parent's scope, so the path of the last real work before it names the
block. Without any path, the innermost line of the user's own files names the site.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from apparate_jax.graph import _jaxpr, cost
from apparate_jax.graph.cuts import Cut

# ``vmap(...)`` around a scope says how it was traced, ``vmap()`` without one nothing at all.
_TRANSFORM = re.compile(r"(?:vmap|jvp|transpose|pmap)\((.*)\)")
# The number of a line at the end of a name, with or without what makes it unique after that.
_LINE = re.compile(r":\d+(?=(?:#\d+)?$)")


def _parts(eqn: Any) -> tuple[str, ...]:
    """Scopes that say where an equation is: no transformations, no subscripts of ``jnp.einsum``.

    Nor names of Equinox layers, which are of their classes and equal for all of them.
    """
    parts = []
    for scope in _jaxpr.name_stack(eqn).split("/"):
        while match := _TRANSFORM.fullmatch(scope):
            scope = match[1]
        if scope and "->" not in scope and not scope.startswith("eqx.nn."):
            parts.append(scope)
    return tuple(parts)


def user_line(eqn: Any) -> str:
    """Innermost frame outside of JAX and Flax: ``file.py:12 (function)``."""
    frame = _jaxpr.own_frame(eqn)
    if frame is None:
        return _jaxpr.source_line(eqn)
    file, line, function = frame
    return f"{os.path.basename(file)}:{line} ({function})"


def without_line(name: str) -> str:
    """A site's name without the number of its source line: a comment above it moves that."""
    return _LINE.sub("", name)


def _root(paths: Sequence[tuple[str, ...]]) -> int:
    """How many leading scopes all work shares: the model itself, not one of its parts."""
    depth = 0
    longest = min(map(len, paths), default=0)
    while depth < longest and len({p[depth] for p in paths}) == 1:
        depth += 1
    return depth


def site_names(eqns: Sequence[Any], cuts: Sequence[Cut]) -> list[str]:
    """A unique name per cut, from the scope of the work that it concludes.

    Args:
        eqns: The online equations.
        cuts: The chosen cuts, in order.
    """
    heavy = [i for i, eqn in enumerate(eqns) if cost.is_heavy(eqn)]
    root = _root([_parts(eqns[i]) for i in heavy])
    names = []
    start = 0
    for cut in cuts:
        made_by = _parts(eqns[cut.eqn_index])
        work = [_parts(eqns[i]) for i in heavy if start <= i <= cut.eqn_index]
        # What is made in the model's own scope (an activation) is named after the work before it.
        scope = made_by if len(made_by) > root or not work else work[-1][: root + 1]
        names.append("/".join(scope[root:]) or user_line(eqns[cut.eqn_index]).split(" ")[0])
        start = cut.eqn_index + 1
    totals, seen = Counter(names), Counter[str]()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(f"{name}#{seen[name]}" if totals[name] > 1 else name)
    return unique
