"""Every system that the live engine can run, against the original model, live, in paired rounds.

The demo's model and stream; what is tuned once is tuned on the first tenth of the recorded stream
(runs/traces, made by ``traces``), with latencies measured here. DeeBERT runs with ramps of its own
kind, from its own checkpoint. The ramp budget is wider than the default, for every system: where
ramps cost more than that, the systems that keep the ramps of the start would have none.

Usage: ``python benchmarks/live_systems.py [SYSTEM ...]`` (about two minutes each); systems that are
not named keep their figures. Writes results/live_systems.json.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import earlier, write_result
from _demo import ROOT

from apparate_jax.bench.baselines import criterion_of, policy_of, task_of
from apparate_jax.bench.live import LiveConfig, run_live
from apparate_jax.bench.recording import load
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.checkpoint import load_checkpoint
from apparate_jax.data import load_data
from apparate_jax.data.dataset import Circle
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve import ServiceConfig, prepare

SYSTEMS = (
    *("apparate", "paper", "artifact", "past-80", "initial-only"),
    *("branchynet", "branchynet-opt", "deebert"),
)
LOAD = 0.4
RAMP_BUDGET = 0.05
"""Share of the worst-case latency that ramps may add: more than three of them do on two cores."""
CONFIG = LiveConfig(load_frac=LOAD, rounds=3, round_s=8.0, saturation_s=2.0)
TRACES = ROOT / "runs" / "traces"
KEYS = ("p25_ms", "p50_ms", "p95_ms", "throughput_rps")


def inputs_of(system: str) -> tuple[Path, Path]:
    """Checkpoint and recording of a system."""
    if system.startswith("deebert"):
        return TRACES / "pooler-checkpoint", TRACES / "imdb-pooler.npz"
    return ROOT / "runs" / "demo" / "checkpoint", TRACES / "imdb.npz"


def measure(system: str) -> dict[str, Any]:
    """One system against the original."""
    place, trace = inputs_of(system)
    checkpoint = load_checkpoint(place)
    config = ServiceConfig(
        criterion=criterion_of(system), placement=PlacementConfig(ramp_budget=RAMP_BUDGET)
    )
    service = prepare(checkpoint, config)
    recording = replace(load(trace), profile=service.profile)
    task = task_of(recording, config.control, config.placement)
    policy = None if system == "apparate" else policy_of(system, task)
    data = load_data(ROOT / "runs" / "demo" / "reviews-stream.csv", checkpoint.model)
    first = len(task.ours.sample)
    unseen = Circle(data, first, len(data) - first)
    result = run_live(service, unseen, CONFIG, policy=policy)
    service.programs.close()
    report = build_report(Subject.of(service, data.name), result, LOAD, None)
    rounds = report["rounds"]
    row: dict[str, Any] = {"system": system, "ramps_at_start": list(service.profile.sites)}
    for key in KEYS:
        ratios = [one["apparate"][key] / one["vanilla"][key] for one in rounds]
        row[key.rsplit("_", 1)[0]] = {
            "median": round(float(np.median(ratios)), 4),
            "rounds": [round(ratio, 4) for ratio in ratios],
        }
    answers = report["apparate"]
    row["disagreement"] = round(1.0 - answers["agreement"], 5)
    row["windows_below_constraint"] = answers["windows_below_constraint"]
    row["answers_checked"] = answers["answers_checked"]
    return row


def known(setup: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What earlier runs with these settings measured, by system."""
    found = earlier("live_systems")
    return {row["system"]: row for row in found["systems"]} if found.get("setup") == setup else {}


def main() -> None:
    """Measure systems, every one unless some are named."""
    chosen = sys.argv[1:] or SYSTEMS
    if unknown := sorted(set(chosen) - set(SYSTEMS)):
        sys.exit(f"unknown: {', '.join(unknown)}; expected some of {', '.join(SYSTEMS)}")
    missing = sorted({str(p) for s in chosen for p in inputs_of(s) if not p.exists()})
    if missing:
        sys.exit(f"missing: {', '.join(missing)}: run `just demo` and `just bench traces` first")
    setup = {"load_frac": LOAD, "ramp_budget": RAMP_BUDGET}
    setup |= {"rounds": CONFIG.rounds, "round_s": CONFIG.round_s}
    rows = known(setup)
    for system in chosen:
        rows[system] = measure(system)
        print(rows[system], flush=True)
        there = [rows[name] for name in SYSTEMS if name in rows]
        write_result("live_systems", {"setup": setup, "systems": there})


if __name__ == "__main__":
    main()
