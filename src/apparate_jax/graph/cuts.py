"""Cut vertices of the computation, and which of them become sites.

Walk the equations in order and keep the set of hot values that are still needed. Where it has
exactly one member, nothing else that was computed so far reaches the logits: a cut vertex, a
feasible place for a ramp (Apparate, SOSP'24, section 3.1: no edge starts before it and ends after
it). Stages get the inputs again, so cold values, and hot ones that are first made from cold values
later on, do not count. Dead code must be gone.

Where all hot values spring from one equation these are the articulation points of the data-flow
graph, in any topological order. Where several do (two towers, joined at the end) the model's own
order decides which of the branches is cut, as it decides what would be computed before an exit.

Along an element-wise chain many values qualify. One per stretch of real work is kept: the last one
before the next real work, that is after the activation or the norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from apparate_jax.graph import cost
from apparate_jax.graph.flow import Flow, Kind, last_uses

MIN_WORK_FRAC = 0.005
"""Share of the model's heavy operations that makes a stretch of work of its own between sites."""

_LAYOUT = cost.FREE - {"concatenate", "gather", "pad"}


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut vertex: the variable, the equation that computes it and the operations before it.

    ``heavy_before`` counts matrix products and convolutions only.
    """

    var: Any
    eqn_index: int
    work_before: float
    heavy_before: float


def cut_vertices(flow: Flow) -> list[Cut]:
    """All cut vertices of the online computation, in order, the logits excluded."""
    eqns = flow.online
    last = last_uses(eqns, flow.out)
    live: set[Any] = set()
    ends: dict[int, list[Any]] = {}
    cuts: list[Cut] = []
    work = heavy = 0.0
    for i, eqn in enumerate(eqns):
        work += cost.flops(eqn)
        heavy += cost.flops(eqn) if cost.is_heavy(eqn) else 0.0
        live.difference_update(ends.pop(i, ()))
        for var in eqn.outvars:
            if flow.kinds[var] is Kind.HOT and var in last:
                live.add(var)
                ends.setdefault(last[var], []).append(var)
        if len(live) == 1:
            (var,) = live
            if var is not flow.out and (not cuts or cuts[-1].var is not var):
                cuts.append(Cut(var, i, work, heavy))
    return cuts


def stretches(cuts: Sequence[Cut], flow: Flow) -> list[list[Cut]]:
    """Groups of cuts with real work between them, none before the first of it or after the last.

    A cut before any real work (an embedding), or after the last of it, is no use as a site. A
    model without matrix products or convolutions is grouped by all of its operations.
    """
    heavy = sum(cost.flops(eqn) for eqn in flow.online if cost.is_heavy(eqn))
    total = heavy or flow.total_flops
    groups: list[list[Cut]] = []
    start = 0.0
    for cut in cuts:
        work = cut.heavy_before if heavy else cut.work_before
        if work < MIN_WORK_FRAC * total or work >= total:
            continue
        if not groups or work - start >= MIN_WORK_FRAC * total:
            groups.append([])
            start = work
        groups[-1].append(cut)
    return groups


def _feeds_ramp(cut: Cut, batch: int) -> bool:
    shape = cost.shape_of(cut.var)
    return (
        len(shape) >= 2
        and shape[0] == batch
        and jax.numpy.issubdtype(cut.var.aval.dtype, jax.numpy.floating)
    )


def _relabels(eqn: Any) -> bool:
    """Whether an equation changes the layout only; a cast to fewer bytes halves what travels."""
    if eqn.primitive.name not in _LAYOUT:
        return False
    narrows = cost.size_bytes(eqn.outvars[0]) < cost.size_bytes(eqn.invars[0])
    return not (eqn.primitive.name == "convert_element_type" and narrows)


def _keep_one(group: Sequence[Cut], flow: Flow, batch: int) -> Cut | None:
    """The last value of a group that a ramp can read and that is not a mere relabelling."""
    fit = [c for c in group if _feeds_ramp(c, batch)]
    made = [c for c in fit if not _relabels(flow.online[c.eqn_index])]
    chosen = made or fit
    return chosen[-1] if chosen else None


def group_cuts(cuts: Sequence[Cut], flow: Flow, batch: int) -> list[Cut]:
    """One cut per stretch of real work, floating-point with the batch as its leading axis."""
    kept = [_keep_one(group, flow, batch) for group in stretches(cuts, flow)]
    return [cut for cut in kept if cut is not None]


def widest_span(flow: Flow) -> Any | None:
    """The equation whose hot value stays alive over the most work: why there is no cut."""
    eqns = flow.online
    last = last_uses(eqns, flow.out)
    before = [0.0]
    for eqn in eqns:
        before.append(before[-1] + cost.flops(eqn))
    spans = [
        (before[min(last[v], len(eqns) - 1) + 1] - before[i + 1], -i)
        for i, eqn in enumerate(eqns)
        for v in eqn.outvars
        if flow.kinds[v] is Kind.HOT and v in last
    ]
    return eqns[-max(spans)[1]] if spans else None
