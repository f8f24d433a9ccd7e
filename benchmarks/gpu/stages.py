"""Merged against atomic stages: what a set of ramps costs before and after it was compiled.

Atomic stages lie between neighbouring sites, heads apart: any set of ramps runs on them at once.
Merged ones are single programs between active ramps. Both against the original model.
"""

from functools import partial
from typing import Any

import numpy as np
from _sizes import Size
from _subject import subject_of
from _timing import Dispatch, answer_times, in_turns, ratio, route_of

COUNTS = (1, 2, 4)


def measure(size: Size, name: str, batch: int) -> dict[str, Any]:
    """Time to the original's answer, by number of active ramps and kind of stages."""
    subject = subject_of(size, name)
    sets = {count: subject.spaced(count) for count in COUNTS}
    every = sorted({site for sites in sets.values() for site in sites})
    programs, inputs = subject.programs(every, batch), subject.inputs(batch)
    programs.warm_atomic()
    ways: dict[str, Dispatch] = {}
    lengths = {}

    def add(way: str, sites: tuple[int, ...]) -> None:
        ways[way] = route_of(programs, sites, inputs, batch)
        lengths[way] = len(programs.route(sites, batch).segments)

    for count, sites in sets.items():
        add(f"{count} atomic", sites)  # merged ones are taken where there are any: these first
    for sites in ((), *sets.values()):
        programs.warm_merged(sites)
    add("original", ())
    for count, sites in sets.items():
        add(f"{count} merged", sites)
    times = in_turns({way: partial(answer_times, d) for way, d in ways.items()}, size.rounds)
    ends = {way: values[:, -1] for way, values in times.items()}
    rows = {
        way: {
            "programs": lengths[way],
            "median_ms": round(float(np.median(end)), 3),
            "ratio": ratio(end, ends["original"]),
        }
        for way, end in ends.items()
    }
    return {"sites": len(subject.program.sites), **rows}


def cases(size: Size) -> dict[str, Any]:
    """One case per model and batch."""
    return {
        f"{name}, batch {batch}": partial(measure, size, name, batch)
        for name in size.few
        for batch in size.few_batches
    }
