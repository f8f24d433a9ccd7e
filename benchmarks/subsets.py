"""The joint choice of ramps and thresholds: its time, and how far growth stays below all sets.

At most three active ramps, 1 % wrong answers, the programs compiled; from NumPy arrays to the
choice. The gap of growth is measured where all sets can be tried, on the same synthetic windows,
with ramps that cost something and ramps that are free.
Writes results/subsets.json.
"""

import time
from typing import Any
from unittest import mock

import numpy as np
from _common import write_result
from _windows import FAMILIES

from apparate_jax.control import set_search
from apparate_jax.control.subsets import choose_ramps, warm
from apparate_jax.control.thresholds import budget_for

CASES = (
    # samples, sites, target ms
    (512, 12, 60.0),
    (1024, 12, 60.0),
    (2048, 12, None),
    (512, 33, 1000.0),
    (1024, 33, 1000.0),
    (2048, 33, None),
)
GROWN = (
    # samples, sites, at most so many active: too many sets for trying each
    (1024, 33, 4),
    (512, 33, 6),
)
GAPS = (
    # samples, sites, at most so many active: all sets can be tried
    (512, 12, 3),
    (1024, 12, 3),
    (512, 12, 5),
    (512, 33, 3),
)
SHARE = 0.01
ROUNDS = 15
SEEDS = 20
COST_MS = 0.2


def window_of(
    samples: int, sites: int, seed: int, family: str = "typical", cost: float = COST_MS
) -> tuple[np.ndarray, ...]:
    """A window, and costs of ramps that differ by half."""
    costs = cost * np.random.default_rng(seed).uniform(0.75, 1.25, sites)
    return *FAMILIES[family](samples, sites, seed), costs


def timed(samples: int, sites: int, max_ramps: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Median time of the choice, warmed."""
    start = time.perf_counter()
    warm(samples, sites, budget_for(SHARE, samples), max_ramps)
    compile_s = time.perf_counter() - start
    times = []
    for seed in range(rounds):
        window = window_of(samples, sites, seed)
        start = time.perf_counter()
        choose_ramps(*window, samples, budget_for(SHARE, samples), max_ramps=max_ramps)
        times.append(time.perf_counter() - start)
    return {
        "samples": samples,
        "sites": sites,
        "max_ramps": max_ramps,
        "budget": budget_for(SHARE, samples),
        "ms": round(float(np.median(times)) * 1e3, 2),
        "compile_s": round(compile_s, 2),
    }


def growth_gap(samples: int, sites: int, max_ramps: int) -> dict[str, Any]:
    """What growth loses against all sets, as a share of the net, by family and cost."""
    row: dict[str, Any] = {"samples": samples, "sites": sites, "max_ramps": max_ramps}
    limit = budget_for(SHARE, samples)
    for family in FAMILIES:
        for cost in (0.0, COST_MS):
            gaps = []
            for seed in range(SEEDS):
                window = window_of(samples, sites, seed, family, cost)
                with mock.patch.multiple(set_search, MAX_WORK=10**12, MAX_SETS=10**6):
                    best = choose_ramps(*window, samples, limit, max_ramps=max_ramps)
                with mock.patch.object(set_search, "MAX_WORK", 0):
                    near = choose_ramps(*window, samples, limit, max_ramps=max_ramps)
                gaps.append(1.0 - near.net / best.net)
            row[f"{family}, {cost} ms"] = {
                "windows": SEEDS,
                "not_the_best": sum(gap > 1e-5 for gap in gaps),
                "gap_frac": {"mean": round(float(np.mean(gaps)), 5), "max": round(max(gaps), 5)},
            }
    return row


def main() -> None:
    """Measure every size."""
    sizes = []
    for samples, sites, target in CASES:
        row = timed(samples, sites, 3)
        sizes.append(row if target is None else {**row, "target_ms": target})
        print(f"N={samples:5} S={sites:2} at most 3: {row['ms']:8.2f} ms, target {target}")
    large = [timed(*case, rounds=3) for case in GROWN]
    for row in large:
        print(f"grown: {row}")
    gaps = [growth_gap(*case) for case in GAPS]
    for gap in gaps:
        print(f"growth below all sets: {gap}")
    write_result("subsets", {"cost_ms": COST_MS, "sizes": sizes, "grown": large, "growth": gaps})


if __name__ == "__main__":
    main()
