"""What it is worth that answered batches let others go before what is left of them: live, by load.

The demo's model and ramps with the engine's default, and with nothing deferred, each against the
original on the same arrivals and in turn; the two take turns as well. Ratios over the original of
the same round.

Usage: ``python benchmarks/deferral.py [LOAD ...]`` (three and a half minutes each); loads that are
not named keep their figures. Writes results/deferral.json.
"""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
from _common import earlier, write_result
from _demo import ROOT

from apparate_jax.bench.live import LiveConfig, run_live
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.checkpoint import load_checkpoint
from apparate_jax.data import load_data
from apparate_jax.serve import Service, prepare
from apparate_jax.serve.engine import EngineConfig

DEMO = ROOT / "runs" / "demo"
LOADS = (0.4, 0.6)
TURNS = 2
CONFIG = LiveConfig(rounds=3, round_s=6.0, saturation_s=1.0)
SYSTEMS = {"deferred": EngineConfig().defer, "at once": 0}
KEYS = ("p25_ms", "p50_ms", "p95_ms", "p99_ms", "throughput_rps")


def with_defer(service: Service, defer: int) -> Service:
    """The same programs under another setting."""
    engine = replace(service.config.engine, defer=defer)
    return service._replace(config=replace(service.config, engine=engine))


def measure(service: Service, data: Any, load: float) -> dict[str, Any]:
    """Both at one load, in turns."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in SYSTEMS}
    agreement: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for turn in range(TURNS):
        for name in list(SYSTEMS)[:: 1 if turn % 2 == 0 else -1]:
            served = with_defer(service, SYSTEMS[name])
            config = replace(CONFIG, load_frac=load, seed=turn)
            result = run_live(served, data, config)
            report = build_report(Subject.of(served, data.name), result, load, None)
            rounds[name] += report["rounds"]
            agreement[name].append(report["apparate"]["agreement"])
    row: dict[str, Any] = {"load_frac": load}
    for name, rows in rounds.items():
        row[name] = {"agreement": round(float(np.mean(agreement[name])), 5)}
        for key in KEYS:
            ratios = [one["apparate"][key] / one["vanilla"][key] for one in rows]
            row[name][key.rsplit("_", 1)[0]] = {
                "median": round(float(np.median(ratios)), 4),
                "rounds": [round(ratio, 4) for ratio in ratios],
            }
    return row


def main() -> None:
    """Measure every load, or those that are named."""
    if not (DEMO / "checkpoint").is_dir():
        sys.exit("no runs/demo/checkpoint: run `just demo` first")
    setup = {"turns": TURNS, "rounds": CONFIG.rounds, "round_s": CONFIG.round_s, **SYSTEMS}
    found = earlier("deferral")
    known = found["loads"] if found.get("setup") == setup else []
    rows = {row["load_frac"]: row for row in known}
    checkpoint = load_checkpoint(DEMO / "checkpoint")
    data = load_data(DEMO / "reviews-stream.csv", checkpoint.model)
    service = prepare(checkpoint)
    try:
        for load in [float(word) for word in sys.argv[1:]] or LOADS:
            rows[load] = measure(service, data, load)
            print(load, rows[load], flush=True)
            there = [rows[load] for load in sorted(rows)]
            write_result("deferral", {"setup": setup, "loads": there})
    finally:
        service.programs.close()


if __name__ == "__main__":
    main()
