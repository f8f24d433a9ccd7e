"""Copying answers out: from a ramp's output being ready to its being on the host.

With the copy begun when the output was queued (``copy_to_host_async``) and without; on a device
that has nothing else to do, and while it runs the rest of the model.
"""

import time
from functools import partial
from typing import Any

import jax
import numpy as np
from _sizes import Size
from _subject import subject_of
from _timing import in_turns

from apparate_jax.serve.programs import Programs


def copy_out(
    programs: Programs,
    sites: tuple[int, ...],
    batch: int,
    inputs: Any,
    *,
    ahead: bool,
    busy: bool,
) -> list[float]:
    """Milliseconds from ready to host, and from dispatch to host, of the first ramp's answer."""
    first, *rest = programs.route(sites, batch).segments
    start = time.perf_counter()
    carry, answer = first.call(*programs.ramp_params[sites[0]], *first.constants, *inputs)
    if ahead:
        answer.copy_to_host_async()
    last = answer
    for segment in rest if busy else ():
        leading = programs.ramp_params[segment.ramp] if segment.ramp is not None else ()
        outputs = segment.call(*leading, *segment.constants, carry, *inputs)
        carry, last = outputs[0], outputs[-1]
    answer.block_until_ready()
    ready = time.perf_counter()
    np.asarray(answer)
    there = time.perf_counter()
    jax.block_until_ready(last)
    return [(there - ready) * 1e3, (there - start) * 1e3]


def measure(size: Size, name: str, batch: int) -> dict[str, Any]:
    """All four ways."""
    subject = subject_of(size, name)
    sites, inputs = subject.spaced(1), subject.inputs(batch)
    programs = subject.programs(sites, batch)
    programs.warm_merged(sites)
    fns = {
        f"{'busy' if busy else 'idle'} device, {'begun ahead' if ahead else 'not begun'}": partial(
            copy_out, programs, sites, batch, inputs, ahead=ahead, busy=busy
        )
        for busy in (False, True)
        for ahead in (False, True)
    }
    times = in_turns(fns, size.rounds)
    rows = {
        way: {
            "ready_to_host_us": round(float(np.median(values[:, 0])) * 1e3, 1),
            "p95_us": round(float(np.percentile(values[:, 0], 95)) * 1e3, 1),
            "dispatch_to_host_ms": round(float(np.median(values[:, 1])), 3),
        }
        for way, values in times.items()
    }
    return {"answer_bytes": 4 * batch * (2 + subject.program.num_classes), **rows}


def cases(size: Size) -> dict[str, Any]:
    """One case per model and batch."""
    return {
        f"{name}, batch {batch}": partial(measure, size, name, batch)
        for name in size.few
        for batch in size.few_batches
    }
