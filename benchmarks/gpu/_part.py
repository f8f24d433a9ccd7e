"""One part of the GPU suite in a process of its own: its cases in turn, for as long as it may.

A part is a module with ``cases(size)``: what to measure by name, each a function that gives JSON
values. What happens is told in lines of JSON, so that the caller knows what to blame if this dies.
"""

import hashlib
import importlib
import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _results import Results, file_name
from _sizes import SIZES

Tell = Callable[[dict[str, Any]], None]
WHY_CHARS = 500
"""Of an error that are kept."""


def facts(device: str | None) -> dict[str, Any]:
    """The machine, as JAX names it; with a device's name given nothing is asked of JAX."""
    if device is not None:
        return {"device": device, "jax": version("jax")}
    from _common import machine

    return machine()


def described(size: str) -> dict[str, str]:
    """A size's name, and a digest of what it is now: other rounds or models are measured again."""
    text = json.dumps(asdict(SIZES[size]), sort_keys=True)
    return {"size": size, "digest": hashlib.sha256(text.encode()).hexdigest()[:12]}


def run_part(
    name: str,
    size: str | None,
    results_dir: Path,
    seconds: float,
    *,
    skip: Collection[str] = (),
    force: bool = False,
    device: str | None = None,
    tell: Tell = lambda event: None,
    clock: Callable[[], float] = time.monotonic,
) -> Results:
    """Measure what is left of a part.

    Args:
        name: Of its module.
        size: A key of ``SIZES``; by the device's kind if None.
        results_dir: Where results files are.
        seconds: No case begins after that many, nor one that would probably end later.
        skip: Cases to leave.
        force: Measure all cases again.
        device: Its name; JAX's if None.
        tell: Told of each event.
        clock: Seconds.
    """
    deadline = clock() + seconds
    machine = facts(device)
    size = size or ("cpu" if machine["device"].startswith("cpu") else "gpu")
    settings = {"device": machine["device"], "jax": machine["jax"], **described(size)}
    results = Results(results_dir / file_name(machine["device"]), machine)
    tell({"file": str(results.path), "with": settings})
    module = importlib.import_module(name)
    cases = module.cases(SIZES[size])
    about = (module.__doc__ or "").partition("\n")[0]
    results.begin(name, about, settings, list(cases), force=force)
    run_cases(name, cases, results, results.pending(name, skip), deadline, tell, clock)
    return results


def run_cases(
    name: str,
    cases: Mapping[str, Callable[[], dict[str, Any]]],
    results: Results,
    keys: Sequence[str],
    deadline: float,
    tell: Tell,
    clock: Callable[[], float],
) -> None:
    """Measure these cases of a part until there is no time for another."""
    took: list[float] = []
    for key in keys:
        likely = sum(took) / len(took) if took else 0.0
        if clock() + likely >= deadline:
            break
        tell({"begins": key})
        start = clock()
        try:
            results.add(name, key, {**cases[key](), "took_s": round(clock() - start, 1)})
        except Exception as error:  # the others are still worth having
            results.fail(name, key, f"{type(error).__name__}: {error}"[:WHY_CHARS])
        took.append(clock() - start)
        tell({"ends": key})


def told_on_stdout() -> Tell:
    """Tell the caller on standard output, where nothing else is printed from here on."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda event: print(json.dumps(event), file=events, flush=True)
