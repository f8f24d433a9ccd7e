"""The paper's studies on real recorded streams, on replay: ``benchmarks/traces.py`` makes these.

Writes results/studies.json, and a picture of each study into runs/studies. With names only those
are run, and the others stay in the file as they were. Azure's traces of arrivals are used where
they are there.
"""

import time
from dataclasses import replace
from typing import Any

from _azure import patterns as azure
from _common import asked, earlier, write_result
from _demo import ROOT

from apparate_jax.bench.recording import Recording, load
from apparate_jax.bench.studies import STUDIES, run_study
from apparate_jax.bench.study import Inputs, StudyConfig, head_to_head
from apparate_jax.bench.study_plot import plot_study

TRACES = ROOT / "runs" / "traces"
PICTURES = ROOT / "runs" / "studies"
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
    """Run what was asked for, or everything; two processes may share the file."""
    for name in asked(RUNS, "studies"):
        found = run(name)
        kept = earlier("studies").get("studies", {})
        if found is not None:
            kept[name] = found
        write_result("studies", {"studies": kept})


if __name__ == "__main__":
    main()
