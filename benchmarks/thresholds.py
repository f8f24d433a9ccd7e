"""Exact threshold tuning against the paper's greedy search: time, gain, and proof by brute force.

Time from NumPy arrays to NumPy thresholds, the program compiled; both searches in turn on the same
synthetic windows. Gain is what the exact thresholds save beyond the greedy ones. Also what a batch
costs the controller when no tuning is due. Writes results/thresholds.json.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import paired, write_result

from apparate_jax.control.controller import ControlConfig, Observation, make_controller
from apparate_jax.control.exact import num_candidates
from apparate_jax.control.thresholds import budget_for, tune_first, tune_thresholds

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.control.cases import brute_force, typical_window

CASES = (
    # samples, ramps, wrong answers allowed, as a share
    (512, 1, 0.01),
    (512, 2, 0.01),
    (512, 3, 0.01),
    (512, 6, 0.01),
    (512, 12, 0.01),
    (1024, 3, 0.01),
    (2048, 3, 0.005),
    (2048, 3, 0.01),
    (2048, 6, 0.005),
)
TARGETS_MS = {(512, 3): 1.0, (512, 6): 4.0, (512, 12): 25.0}
ROUNDS = 60
SEEDS = 20
BRUTE_WINDOWS = 1000


def compare(samples: int, ramps: int, share: float) -> dict[str, Any]:
    """Times and gains of both searches at one size of window."""
    window = typical_window(samples, ramps, seed=0)
    start = time.perf_counter()
    tune_thresholds(*window, share)
    compile_s = time.perf_counter() - start
    times = paired(
        {
            "exact": lambda: tune_thresholds(*window, share, "exact"),
            "greedy": lambda: tune_thresholds(*window, share, "greedy"),
        },
        ROUNDS,
    )
    gains = []
    for seed in range(SEEDS):
        drawn = typical_window(samples, ramps, seed)
        exact, greedy = (tune_thresholds(*drawn, share, m) for m in ("exact", "greedy"))
        gains.append(exact.saving / greedy.saving - 1.0)
    budget = budget_for(share, samples)
    row = {
        "samples": samples,
        "ramps": ramps,
        "budget": budget,
        "candidates": num_candidates(budget, ramps),
        "exact_ms": round(float(np.median(times["exact"])) * 1e3, 3),
        "greedy_ms": round(float(np.median(times["greedy"])) * 1e3, 3),
        "compile_s": round(compile_s, 2),
        "gain_frac": {
            "min": round(float(np.min(gains)), 4),
            "mean": round(float(np.mean(gains)), 4),
            "max": round(float(np.max(gains)), 4),
        },
    }
    target = TARGETS_MS.get((samples, ramps))
    return row if target is None else {**row, "target_ms": target}


def equal_to_brute_force() -> dict[str, int]:
    """On how many small random windows the exact search saves what the best thresholds save."""
    rng = np.random.default_rng(0)
    size, equal, below_greedy = 12, 0, 0
    for i in range(BRUTE_WINDOWS):
        ramps = i % 4 + 1
        samples = int(rng.integers(1, (size if ramps < 4 else 6) + 1))
        errors = (rng.integers(0, rng.integers(2, 12), (size, ramps)) / 20).astype(np.float32)
        agrees = rng.random((size, ramps)) < rng.choice([0.3, 0.7, 0.9])
        gains = (-np.sort(-rng.integers(0, 9, ramps))).astype(np.float32)
        share = float(rng.choice([0.0, 0.1, 0.25]))
        found = tune_first(errors, agrees, gains, samples, share)
        greedy = tune_first(errors, agrees, gains, samples, share, "greedy")
        limit = budget_for(share, samples)
        best = brute_force(errors[:samples], agrees[:samples], gains, limit)
        wrong = round(found.disagreement * samples)
        equal += abs(found.saving * samples - best.saving) < 1e-6 and wrong <= limit
        below_greedy += found.saving < greedy.saving - 1e-6
    return {"windows": BRUTE_WINDOWS, "equal": equal, "below_greedy": below_greedy}


def control_cost() -> dict[str, Any]:
    """What a batch costs the controller: with nothing due, and with a tuning."""
    config = ControlConfig(tune_every=ControlConfig().window)
    eager = ControlConfig(tune_every=1)
    sites, gains = (2, 5, 8), (6.0, 4.0, 2.0)
    errors, agrees, _ = typical_window(config.window, len(sites), seed=0)
    nobody = np.full(config.window, len(sites), np.int32)
    fns = {}
    for name, settings in (("observe", config), ("observe and tune", eager)):
        controller = make_controller(settings, sites, gains)
        full = Observation(sites, errors, agrees, nobody)
        plan, state, _ = controller.update(controller.init(), full)
        exits = np.append(errors[:8] < np.float32(plan.thresholds), np.ones((8, 1), bool), 1)
        batch = Observation(sites, errors[:8], agrees[:8], exits.argmax(1).astype(np.int32))
        fns[name] = lambda update=controller.update, state=state, batch=batch: update(state, batch)
    times = paired(fns, 200)
    median_us = {name: round(float(np.median(t)) * 1e6, 1) for name, t in times.items()}
    return {"window": config.window, "ramps": len(sites), "batch": 8, "median_us": median_us}


def main() -> None:
    """Measure every size."""
    rows = [compare(*case) for case in CASES]
    for row in rows:
        print(
            f"N={row['samples']:5} R={row['ramps']:2} B={row['budget']:2} "
            f"{row['candidates']:5} candidates  exact {row['exact_ms']:7.3f} ms  "
            f"greedy {row['greedy_ms']:7.3f} ms  gain {row['gain_frac']['mean']:.1%}"
        )
    brute = equal_to_brute_force()
    print(f"equal to brute force on {brute['equal']} of {brute['windows']} windows")
    control = control_cost()
    print(f"controller, us a batch: {control['median_us']}")
    write_result("thresholds", {"sizes": rows, "brute_force": brute, "controller": control})


if __name__ == "__main__":
    main()
