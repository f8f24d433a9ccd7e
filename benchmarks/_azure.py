"""Azure's public traces of arrivals, from the folder of data sets: they are not ours to give.

Two services of language models (TIMESTAMP of each request), and how often each of 500 functions was
called in each minute (Azure Functions 2019).
"""

import csv
import os
from pathlib import Path

import numpy as np
from _demo import ROOT

from apparate_jax.bench.study import Pattern
from apparate_jax.bench.workload import Times, from_counts, read_trace

DATA = "APPARATE_DATA"
TIMES = ("azure_llm_code", "azure_llm_conv")
COUNTS = "azure_functions_500"
FUNCTION = "azure_function"
FILES = {"azure_llm_conv": TIMES[1], FUNCTION: COUNTS}
"""What the evaluation takes, and the trace that it is made of."""
ARRIVALS = 20_000
"""How many arrivals of a function the evaluation takes: some minutes."""


def folder() -> Path:
    """Where the traces are: in $APPARATE_DATA, or in the folder of data sets beside the project."""
    return Path(os.environ.get(DATA) or ROOT.parent / "shared" / "data") / "traces"


def patterns(requests: int) -> tuple[Pattern, ...]:
    """Azure's arrivals that are there; the others are named with what is missing.

    Args:
        requests: How many a run takes.
    """
    found = []
    for name in (*TIMES, COUNTS):
        path = folder() / f"{name}.csv"
        if not path.is_file():
            print(f"arrivals: without {name}, there is no {path.name} in {path.parent}")
        elif name == COUNTS:
            found.append(Pattern(FUNCTION, burstiest(path, requests)))
        else:
            found.append(Pattern(name, read_trace(path)))
    return tuple(found)


def counts_of(path: Path) -> list[list[int]]:
    """How often each function was called in each minute; four columns of names come before."""
    with path.open(newline="") as file:
        return [[int(count) for count in row[4:]] for row in list(csv.reader(file))[1:]]


def burstiest(path: Path, requests: int) -> Times:
    """Arrivals of the burstiest function that has about as many as wanted.

    That is the one whose counts have the largest variance over their mean, of those with at least
    as many invocations as requests and at most twice as many: all of its hours are played.

    Args:
        path: Counts of functions.
        requests: As many are wanted.

    Returns:
        f64[n], ascending, seconds.
    """
    fitting = [row for row in counts_of(path) if requests <= sum(row) <= 2 * requests]
    return from_counts(max(fitting, key=lambda row: np.var(row) / np.mean(row)), 60.0)


def busiest(path: Path, requests: int) -> Times:
    """Arrivals of the busiest function, in its first minutes.

    Args:
        path: Counts of functions.
        requests: As many are wanted at least.

    Returns:
        f64[n], ascending, seconds.
    """
    row = max(counts_of(path), key=sum)
    minutes = int(np.searchsorted(np.cumsum(row), requests)) + 1
    return from_counts(row[:minutes], 60.0)


def write_arrivals(to: Path) -> None:
    """Write the evaluation's arrivals, a row each, where they are not there yet.

    Args:
        to: Folder; a file is called by its trace.
    """
    for name, source in FILES.items():
        path, given = to / f"{name}.csv", folder() / f"{source}.csv"
        if path.is_file():
            continue
        if not given.is_file():
            print(f"{name}: skipped, there is no {given.name} in {given.parent}")
            continue
        times = busiest(given, ARRIVALS) if source == COUNTS else read_trace(given)
        path.write_text("\n".join(["seconds", *(f"{time:.6f}" for time in times)]) + "\n")
