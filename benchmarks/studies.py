"""The paper's studies on real recorded streams, on replay: ``benchmarks/traces.py`` makes these.

Writes results/studies.json, and a picture of each study into runs/studies. With names only those
are run, and the others stay in the file as they were. Azure's traces of arrivals are used where
they are there.
"""

import csv
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, write_result
from _demo import ROOT

from apparate_jax.bench.recording import Recording, load
from apparate_jax.bench.studies import STUDIES, run_study
from apparate_jax.bench.study import Inputs, Pattern, StudyConfig, head_to_head
from apparate_jax.bench.study_plot import plot_study
from apparate_jax.bench.workload import from_counts, read_trace

TRACES = ROOT / "runs" / "traces"
PICTURES = ROOT / "runs" / "studies"
AZURE = ROOT.parent / "shared" / "data" / "traces"
"""Azure's public traces: two of arrival times, and invocations per minute of functions."""
AZURE_TIMES = ("azure_llm_code", "azure_llm_conv")
AZURE_COUNTS = "azure_functions_500"
KEPT = (
    *("setting", "system", "agreement", "disagreement", "worst_disagreement"),
    *("windows_below_constraint", "p25_saved_frac", "p50_saved_frac", "p95_saved_frac"),
    *("p99_saved_frac", "mean_saved_frac", "throughput_ratio", "early_frac", "kept_frac"),
    *("of_exact_frac", "next_disagreement", "search_ms"),
)
SHORT = StudyConfig(requests=5000, seeds=2)
LONG = StudyConfig(requests=12_000, seeds=20)
RIVALS = StudyConfig(requests=5000, seeds=20, systems=("apparate", "paper", "oracle"))
RIVALRY = ("p25_saved_frac", "p50_saved_frac", "p95_saved_frac", "disagreement")
REVIEWS = ("imdb", "amazon", "rotten")

RUNS: dict[str, tuple[str, tuple[str, ...], StudyConfig]] = {
    "guard": ("guard", ("imdb",), LONG),
    "guard-shift": ("guard", REVIEWS, replace(LONG, stream="shift")),
    "guard-drift": ("guard", REVIEWS, replace(LONG, stream="drift")),
    "guard-classes": (
        "guard",
        ("cifar-resnet-18",),
        replace(LONG, stream="recorded", requests=6000),
    ),
    "seeds": ("baselines", ("imdb",), RIVALS),
    "seeds-shift": ("baselines", REVIEWS, replace(RIVALS, stream="shift")),
    "ablation": ("ablation", ("imdb",), SHORT),
    "ablation-shift": ("ablation", REVIEWS, StudyConfig("shift", requests=5000, seeds=2)),
    "baselines": ("baselines", ("imdb",), SHORT),
    "baselines-shift": ("baselines", REVIEWS, StudyConfig("shift", requests=5000, seeds=2)),
    "arrivals": ("arrivals", ("imdb",), replace(SHORT, seeds=5)),
    "load": ("load", ("imdb",), SHORT),
    "accuracy": ("accuracy", ("imdb",), SHORT),
    "tuner": ("tuner", ("imdb",), SHORT),
    "window": ("window", ("imdb",), SHORT),
    "budget": ("budget", ("imdb",), SHORT),
    "slo": ("slo", ("imdb",), SHORT),
    "platform": ("platform", ("imdb",), SHORT),
    "ramps": ("ramps", ("imdb", "imdb-pooler"), SHORT),
}
"""Name of a run: study, traces, and what its cells share."""


def trace(name: str) -> Recording | None:
    """A trace, or None if it was not made here."""
    path = TRACES / f"{name}.npz"
    return load(path) if path.is_file() else None


def azure(requests: int) -> tuple[Pattern, ...]:
    """Azure's arrivals that are there; the others are named with what is missing."""
    found = []
    for name in (*AZURE_TIMES, AZURE_COUNTS):
        path = AZURE / f"{name}.csv"
        if not path.is_file():
            print(f"arrivals: without {name}, there is no {path.name} in {AZURE}")
        elif name == AZURE_COUNTS:
            found.append(Pattern("azure_function", from_counts(busy_minutes(path, requests), 60.0)))
        else:
            found.append(Pattern(name, read_trace(path)))
    return tuple(found)


def busy_minutes(path: Path, requests: int) -> list[int]:
    """Invocations per minute of the burstiest function that has about as many as wanted.

    That is the one whose counts have the largest variance over their mean, of those with at least
    as many invocations as requests and at most twice as many: all of its hours are played. A file
    of Azure Functions has four columns of names and then one for each minute.
    """
    with path.open(newline="") as file:
        rows = [[int(count) for count in row[4:]] for row in list(csv.reader(file))[1:]]
    fitting = [row for row in rows if requests <= sum(row) <= 2 * requests]
    return max(fitting, key=lambda row: np.var(row) / np.mean(row))


def run(name: str) -> dict[str, Any] | None:
    """Run one of :data:`RUNS`; its compact result, or None where a trace is missing."""
    study, names, config = RUNS[name]
    traces = [trace(one) for one in names]
    there = tuple(one for one in traces if one is not None)
    if len(there) < len(traces):
        print(f"{name}: skipped, needs {', '.join(names)} of runs/traces (benchmarks/traces.py)")
        return None
    patterns = azure(config.requests + config.settle) if study == "arrivals" else ()
    if study == "arrivals" and not patterns:
        print(f"{name}: skipped, needs a trace of arrivals")
        return None
    heavy = trace("imdb-pooler") if names == ("imdb",) else None
    start = time.perf_counter()
    report = run_study(study, Inputs(there, heavy, patterns=patterns), config)
    PICTURES.mkdir(parents=True, exist_ok=True)
    plot_study(report, STUDIES[study].keys, STUDIES[study].picture, PICTURES / f"{name}.png")
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    rows = [{key: row[key] for key in KEPT if key in row} for row in report["rows"]]
    dropped = ("rows", "by_seed", "environment", "what")
    kept = {**{k: v for k, v in report.items() if k not in dropped}, "traces": names, "rows": rows}
    if config.systems == RIVALS.systems:
        one, other, _ = config.systems
        kept["head_to_head"] = [head_to_head(report["by_seed"], one, other, key) for key in RIVALRY]
    return kept


def main() -> None:
    """Run what was asked for, or everything."""
    path = RESULTS / "studies.json"
    kept = json.loads(path.read_text()).get("studies", {}) if path.is_file() else {}
    asked = sys.argv[1:] or list(RUNS)
    unknown = sorted(set(asked) - set(RUNS))
    if unknown:
        sys.exit(f"unknown studies {unknown}, expected some of {list(RUNS)}")
    for name in asked:
        found = run(name)
        if found is not None:
            kept[name] = found
        write_result("studies", {"studies": kept})


if __name__ == "__main__":
    main()
