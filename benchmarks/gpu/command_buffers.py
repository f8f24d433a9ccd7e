"""Command buffers: the original and its stages as XLA compiles them, with none, and with all.

A command buffer (a CUDA graph) launches many kernels at once. XLA makes one of at least five
operations unless told otherwise; *from one operation* lets it take the shortest stages too.
"""

from functools import partial
from typing import Any

from _sizes import Size
from _subject import is_cpu, subject_of
from _timing import Dispatch, answer_times, in_turns, route_of, staged

RAMPS = 3
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "off": {"xla_gpu_enable_command_buffer": ""},
    "from one operation": {"xla_gpu_graph_min_graph_size": 1},
}


def measure(size: Size, name: str, batch: int) -> dict[str, Any]:
    """When each answer is on the host, by variant."""
    subject = subject_of(size, name)
    sites, inputs = subject.spaced(RAMPS), subject.inputs(batch)
    ways: dict[str, Dispatch] = {}
    refused = {}
    for variant, extra in VARIANTS.items():
        programs = subject.programs(sites, batch, extra)
        try:
            programs.warm_merged(())
            programs.warm_merged(sites)
        except Exception as error:  # of jaxlib's own kinds, which differ between releases
            refused[variant] = f"{type(error).__name__}: {error}"[:300]
            continue
        ways[f"original, {variant}"] = route_of(programs, (), inputs, batch)
        ways[f"stages, {variant}"] = route_of(programs, sites, inputs, batch)
    times = in_turns({way: partial(answer_times, d) for way, d in ways.items()}, size.rounds)
    return {**staged(times, "original, default"), "refused": refused}


def cases(size: Size) -> dict[str, Any]:
    """One case per model and batch; on a CPU one that says that there is nothing to measure."""
    if is_cpu():
        return {"command buffers": lambda: {"not_applicable": "they are a GPU's"}}
    return {
        f"{name}, batch {batch}": partial(measure, size, name, batch)
        for name in size.few
        for batch in size.few_batches
    }
