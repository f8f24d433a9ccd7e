"""Throughput: the monolithic program under plain ``jax.jit``, the original as served, two ramps.

Two batches in flight, as when serving; every answer copied to the host; inputs are on the device.
Weights are random: what answers say does not matter here.
"""

import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import numpy as np
from _sizes import Size
from _subject import Subject, subject_of
from _timing import Dispatch, in_turns, ratio, route_of

RAMPS = 2
IN_FLIGHT = 2
ROUNDS = 7


def monolithic(subject: Subject, inputs: list[jax.Array]) -> Dispatch:
    """The model as its author would run it."""
    flat, tree = jax.tree.flatten(subject.model.params)
    fn = jax.jit(lambda flat, *inputs: subject.model.apply(jax.tree.unflatten(tree, flat), *inputs))

    def dispatch() -> list[jax.Array]:
        logits = fn(flat, *inputs)
        logits.copy_to_host_async()
        return [logits]

    return dispatch


def stream(dispatch: Dispatch, batches: int) -> float:
    """Seconds for so many batches, two in flight."""

    def drain(answers: Iterable[jax.Array]) -> None:
        for answer in answers:
            np.asarray(answer)

    waiting: deque[list[jax.Array]] = deque()
    start = time.perf_counter()
    for _ in range(batches):
        if len(waiting) == IN_FLIGHT:
            drain(waiting.popleft())
        waiting.append(list(dispatch()))
    for answers in waiting:
        drain(answers)
    return time.perf_counter() - start


def measure(size: Size, name: str, batch: int) -> dict[str, Any]:
    """Inputs per second, and over the monolithic program's."""
    subject = subject_of(size, name)
    sites, inputs = subject.spaced(RAMPS), subject.inputs(batch)
    programs = subject.programs(sites, batch)
    for chosen in ((), sites):
        programs.warm_merged(chosen)
    ways = {
        "monolithic": monolithic(subject, inputs),
        "original": route_of(programs, (), inputs, batch),
        "two ramps": route_of(programs, sites, inputs, batch),
    }
    stream(ways["monolithic"], 3)  # compiles
    batches = int(np.clip(3 * size.stream_s / stream(ways["monolithic"], 3), 4, 500))

    def rate(dispatch: Dispatch) -> list[float]:
        return [batch * batches / stream(dispatch, batches)]

    rounds = min(ROUNDS, size.rounds)
    rates = in_turns({way: partial(rate, d) for way, d in ways.items()}, rounds)
    return {
        way: {
            "inputs_per_s": round(float(np.median(values)), 1),
            "ratio": ratio(values, rates["monolithic"]),
            "spread": [round(float(v), 4) for v in np.ptp(values, axis=0) / np.median(values)],
        }
        for way, values in rates.items()
    }


def cases(size: Size) -> dict[str, Any]:
    """One case per model and batch."""
    return {
        f"{name}, batch {batch}": partial(measure, size, name, batch)
        for name in size.models
        for batch in size.batches
    }
