"""Host overhead per batch: how long the dispatcher is busy, by the number of stages.

*Queueing* is the time in which a route's programs are queued on an idle device. *Serving* is the
processor time of the dispatcher's thread per batch in the real engine: batches formed, padded, put
on the device and queued, and everything that wakes it.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from _sizes import Size
from _subject import subject_of
from _timing import in_turns, medians

from apparate_jax.core import ExitPlan
from apparate_jax.serve.engine import Engine
from apparate_jax.serve.programs import Programs
from apparate_jax.serve.route import Course, Route

STAGES = (1, 2, 3, 4, 6)
BATCHES = 200
"""That are served, at most; ten for each timed round."""


class Noted:
    """A route that notes the dispatcher's processor time whenever a batch takes it."""

    def __init__(self, route: Route, noted: list[float]) -> None:
        """Stand in for a route."""
        self._route, self._noted = route, noted

    def start(self, ramp_params: Any, inputs: Any) -> Course:
        """A batch at the start of the route."""
        self._noted.append(time.thread_time())
        return self._route.start(ramp_params, inputs)


class Watched:
    """Programs whose routes are noted."""

    def __init__(self, programs: Programs) -> None:
        """Stand in for programs."""
        self._programs = programs
        self.noted: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._programs, name)

    def route(self, sites: tuple[int, ...], batch: int) -> Noted:
        """The route to run now."""
        return Noted(self._programs.route(sites, batch), self.noted)


def queueing(programs: Programs, sites: tuple[int, ...], batch: int, inputs: Any) -> list[float]:
    """Milliseconds in which a route is queued on an idle device."""
    route = programs.route(sites, batch)
    start = time.perf_counter()
    answers = list(route.dispatch(programs.ramp_params, inputs))
    took = (time.perf_counter() - start) * 1e3
    jax.block_until_ready(answers)
    return [took]


def serving(programs: Programs, sites: tuple[int, ...], batch: int, count: int) -> list[float]:
    """Processor milliseconds of the dispatcher's thread from batch to batch, the queue full."""
    model, watched = programs.model, Watched(programs)
    names = [spec.name for spec in model.inputs]
    rows = model.example_inputs(batch)
    examples = [{n: x[i] for n, x in zip(names, rows, strict=True)} for i in range(batch)]
    engine = Engine(watched, plan=ExitPlan.closed(sites))  # type: ignore[arg-type]
    futures = [engine.submit(example) for _ in range(count) for example in examples]
    with engine:
        for future in futures:
            future.exception()
        engine.wait_idle()
    return (np.diff(watched.noted) * 1e3).tolist()


def measure(size: Size, name: str, batch: int) -> dict[str, Any]:
    """Both, by the number of stages."""
    subject = subject_of(size, name)
    sets = {count: subject.spaced(count - 1) for count in STAGES}
    every = sorted({site for sites in sets.values() for site in sites})
    programs, inputs = subject.programs(every, batch), subject.inputs(batch)
    fns: dict[str, Callable[[], list[float]]] = {}
    for count, sites in sets.items():
        programs.warm_merged(sites)
        fns[str(count)] = partial(queueing, programs, sites, batch, inputs)
    queued = in_turns(fns, size.rounds)
    batches = min(BATCHES, 10 * size.rounds)
    rows = {}
    for count, sites in sets.items():
        served = serving(programs, sites, batch, batches)
        rows[f"stages: {count}"] = {
            "queueing_ms": medians(queued[str(count)])[0],
            "serving_ms": round(float(np.median(served)), 3),
        }
    return rows


def cases(size: Size) -> dict[str, Any]:
    """One case per model, at the smallest batch: the cost does not grow with it."""
    batch = size.few_batches[0]
    return {f"{name}, batch {batch}": partial(measure, size, name, batch) for name in size.few}
