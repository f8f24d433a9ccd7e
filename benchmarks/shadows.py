"""How often shadow batches are worth it: one in 16, one in 4, or that while inputs come alone.

The paper's workloads on replay (`paper.toml`; without recordings of ``benchmarks/traces.py`` they
are left out), three seeds each. Shadow batches say what the inactive ramps would have answered, so
that the choice of ramps follows the stream; their work delays whoever comes meanwhile.

    python benchmarks/shadows.py [WORKLOAD ...]

Takes about five minutes. Writes results/shadows.json, where workloads that were not asked for stay
as they are.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, asked, write_result

from apparate_jax.bench.paper.suite import Workload, read_suite
from apparate_jax.bench.recording import load
from apparate_jax.bench.replay import ReplayConfig
from apparate_jax.bench.replayed import ReplayedConfig, policy, run_replayed
from apparate_jax.bench.workload import read_trace
from apparate_jax.control import load as loads
from apparate_jax.control.config import ControlConfig

SUITE = read_suite(Path(__file__).with_name("paper.toml"))
SEEDS, REQUESTS = 3, 6000
OFTEN, SELDOM = 4, 16
RULES = {
    f"one in {SELDOM}": (SELDOM, 1),
    f"one in {OFTEN}": (OFTEN, 1),
    f"one in {OFTEN} while alone": (SELDOM, SELDOM // OFTEN),
}
"""Batches between two shadow batches, and how many times as often they come while alone."""


def figures(one: Workload, control: ControlConfig) -> dict[str, float]:
    """Means over the seeds."""
    recording = load(one.trace)
    trace = None if one.arrivals is None else read_trace(one.arrivals)
    found = []
    for seed in range(SEEDS):
        config = ReplayedConfig(
            rate_rps=one.rate, arrivals=one.pace, requests=REQUESTS, saturated=1024, seed=seed
        )
        settings = ReplayConfig(seed=seed, first_row=seed * REQUESTS // SEEDS)
        compared, _ = run_replayed(
            recording, policy(recording, control), config, settings, trace=trace
        )
        (turn,) = compared.rounds
        ours, original = (turn.answers[name].latency_ms for name in ("apparate", "vanilla"))
        found.append(
            {
                "p50_saved_frac": 1.0 - np.median(ours) / np.median(original),
                "mean_saved_frac": 1.0 - ours.mean() / original.mean(),
                "p95_ratio": np.percentile(ours, 95) / np.percentile(original, 95),
                "disagreement": 1.0 - turn.answers["apparate"].right.mean(),
            }
        )
    return {key: round(float(np.mean([row[key] for row in found])), 4) for key in found[0]}


def main() -> None:
    """Try every rule on every workload."""
    path = RESULTS / "shadows.json"
    settings = {"seeds": SEEDS, "requests": REQUESTS, "quiet": loads.QUIET}
    kept: dict[str, Any] = json.loads(path.read_text())["workloads"] if path.is_file() else {}
    chosen = loads.OFTEN
    for name in asked([one.name for one in SUITE.workloads], "workloads"):
        one = next(work for work in SUITE.workloads if work.name == name)
        if not one.trace.is_file():
            print(f"{name}: left out, {one.trace.name} is not there: benchmarks/traces.py")
            continue
        kept[name] = {}
        for rule, (every, often) in RULES.items():
            loads.OFTEN = often
            kept[name][rule] = figures(one, ControlConfig(shadow_every=every))
            print(name, rule, kept[name][rule], flush=True)
        loads.OFTEN = chosen
        write_result("shadows", {**settings, "workloads": kept})


if __name__ == "__main__":
    main()
