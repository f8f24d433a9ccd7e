"""Threshold tuning: exact against beam, greedy and grid: time, gain, and proof by brute force.

Time from NumPy arrays to NumPy thresholds, the program compiled; searches in turn on the same
synthetic windows. Gain is what the exact thresholds save beyond the greedy ones, gap what beam
saves less than exact. Writes results/thresholds.json.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import paired, write_result
from _windows import FAMILIES, brute_force, typical_window

from apparate_jax.control.exact import num_candidates
from apparate_jax.control.thresholds import Method, budget_for, tune_first, tune_ladder
from apparate_jax.control.thresholds import tune_thresholds as tune

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
LADDERS = (
    # samples, ramps, limits, target ms
    (2048, 3, (0, 5, 10, 15, 20, 25, 30), 25.0),
    (4096, 3, (-1, 5, 10, 15, 20, 25, 30, 36, 41, 46, 51, 62), None),
)
BEAM_GAPS = (
    # samples, ramps, wrong answers allowed: exact is possible
    (512, 12, 5),
    (1024, 6, 10),
    (1024, 8, 8),
    (2048, 4, 20),
    (2048, 3, 60),
    (512, 6, 20),
)
BEAM_ONLY = ((2048, 6, 25), (2048, 12, 20), (4096, 6, 62))
GRIDS = ((512, 1), (512, 2), (512, 3), (512, 4))
ROUNDS = 60
SEEDS = 20
GAP_SEEDS = 30
BRUTE_WINDOWS = 1000
OTHERS: tuple[Method, ...] = ("beam", "greedy", "greedy-artifact", "grid")


def median_ms(fn: Callable[[], Any], rounds: int) -> float:
    """Median time of a function, after one call."""
    return round(float(np.median(paired({"fn": fn}, rounds)["fn"])) * 1e3, 3)


def spread(values: list[float]) -> dict[str, float]:
    """Least, mean and largest."""
    return {
        "min": round(float(np.min(values)), 5),
        "mean": round(float(np.mean(values)), 5),
        "max": round(float(np.max(values)), 5),
    }


def compare(samples: int, ramps: int, share: float) -> dict[str, Any]:
    """Times and gains of the exact and the greedy search at one size of window."""
    window = typical_window(samples, ramps, seed=0)
    start = time.perf_counter()
    tune(*window, share)
    compile_s = time.perf_counter() - start
    times = paired(
        {
            "exact": lambda: tune(*window, share, "exact"),
            "greedy": lambda: tune(*window, share, "greedy"),
        },
        ROUNDS,
    )
    gains = []
    for seed in range(SEEDS):
        drawn = typical_window(samples, ramps, seed)
        exact, greedy = (tune(*drawn, share, m) for m in ("exact", "greedy"))
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
        "gain_frac": spread(gains),
    }
    target = TARGETS_MS.get((samples, ramps))
    return row if target is None else {**row, "target_ms": target}


def ladder(
    samples: int, ramps: int, limits: tuple[int, ...], target: float | None
) -> dict[str, Any]:
    """Time of several limits at once, against one after the other."""
    window = typical_window(samples, ramps, seed=0)
    largest = max(limits)

    def apart() -> None:
        for limit in limits:
            tune_ladder(*window, samples, (limit,), budget=largest)

    row = {
        "samples": samples,
        "ramps": ramps,
        "limits": limits,
        "ms": median_ms(lambda: tune_ladder(*window, samples, limits, budget=largest), 30),
        "one_by_one_ms": median_ms(apart, 10),
    }
    return row if target is None else {**row, "target_ms": target}


def beam_gap(samples: int, ramps: int, limit: int) -> dict[str, Any]:
    """What beam saves less than exact, as a share, on windows of each family."""
    share = limit / samples
    window = typical_window(samples, ramps, seed=0)
    row: dict[str, Any] = {
        "samples": samples,
        "ramps": ramps,
        "limit": limit,
        "candidates": num_candidates(limit, ramps),
        "exact_ms": median_ms(lambda: tune(*window, share, "exact"), 5),
        "beam_ms": median_ms(lambda: tune(*window, share, "beam"), 10),
    }
    for name, draw in FAMILIES.items():
        gaps = []
        for seed in range(GAP_SEEDS):
            drawn = draw(samples, ramps, seed)
            exact, beam = (tune(*drawn, share, m) for m in ("exact", "beam"))
            gaps.append(1.0 - beam.saving / exact.saving)
        below = sum(gap > 1e-6 for gap in gaps)
        row[name] = {"windows": GAP_SEEDS, "below_exact": below, "gap_frac": spread(gaps)}
    return row


def beam_alone(samples: int, ramps: int, limit: int) -> dict[str, Any]:
    """Time of beam, and what it gains beyond greedy, where exact is impossible or slow."""
    share = limit / samples
    window = typical_window(samples, ramps, seed=0)
    start = time.perf_counter()
    tune(*window, share, "beam")
    compile_s = time.perf_counter() - start
    gains = []
    for seed in range(5):
        drawn = typical_window(samples, ramps, seed)
        beam, greedy = (tune(*drawn, share, m) for m in ("beam", "greedy"))
        gains.append(beam.saving / greedy.saving - 1.0)
    return {
        "samples": samples,
        "ramps": ramps,
        "limit": limit,
        "candidates": num_candidates(limit, ramps),
        "beam_ms": median_ms(lambda: tune(*window, share, "beam"), 5),
        "compile_s": round(compile_s, 2),
        "gain_over_greedy_frac": spread(gains),
    }


def grid_cost(samples: int, ramps: int) -> dict[str, Any]:
    """Time of the grid, and what exact gains beyond it."""
    window = typical_window(samples, ramps, seed=0)
    gains = []
    for seed in range(SEEDS):
        drawn = typical_window(samples, ramps, seed)
        exact, grid = (tune(*drawn, 0.01, m) for m in ("exact", "grid"))
        gains.append(exact.saving / max(grid.saving, 1e-9) - 1.0)
    ms = median_ms(lambda: tune(*window, 0.01, "grid"), 5)
    return {"samples": samples, "ramps": ramps, "grid_ms": ms, "exact_gain_frac": spread(gains)}


def equal_to_brute_force() -> dict[str, Any]:
    """On how many small random windows the exact search saves what the best thresholds save."""
    rng = np.random.default_rng(0)
    size, equal = 12, 0
    below = dict.fromkeys(OTHERS, 0)
    beam_equal = 0
    for i in range(BRUTE_WINDOWS):
        ramps = i % 4 + 1
        samples = int(rng.integers(1, (size if ramps < 4 else 6) + 1))
        errors = (rng.integers(0, rng.integers(2, 12), (size, ramps)) / 20).astype(np.float32)
        agrees = rng.random((size, ramps)) < rng.choice([0.3, 0.7, 0.9])
        gains = (-np.sort(-rng.integers(0, 9, ramps))).astype(np.float32)
        share = float(rng.choice([0.0, 0.1, 0.25]))
        data = (errors, agrees, gains, samples, share)
        found = tune_first(*data)
        for method in OTHERS:
            other = tune_first(*data, method)
            below[method] += found.saving < other.saving - 1e-6
            beam_equal += method == "beam" and abs(found.saving - other.saving) < 1e-6
        limit = budget_for(share, samples)
        best = brute_force(errors[:samples], agrees[:samples], gains, limit)
        wrong = round(found.disagreement * samples)
        equal += abs(found.saving * samples - best.saving) < 1e-6 and wrong <= limit
    return {
        "windows": BRUTE_WINDOWS,
        "equal": int(equal),
        "below": {name: int(count) for name, count in below.items()},
        "beam_equal": int(beam_equal),
    }


def main() -> None:
    """Measure every size."""
    sizes = [compare(*case) for case in CASES]
    for row in sizes:
        print(
            f"N={row['samples']:5} R={row['ramps']:2} B={row['budget']:2} "
            f"{row['candidates']:5} candidates  exact {row['exact_ms']:7.3f} ms  "
            f"greedy {row['greedy_ms']:7.3f} ms  gain {row['gain_frac']['mean']:.1%}"
        )
    found: dict[str, Any] = {"sizes": sizes}
    tables: dict[str, tuple[Callable[..., dict[str, Any]], Any]] = {
        "ladders": (ladder, LADDERS),
        "beam_gaps": (beam_gap, BEAM_GAPS),
        "beam": (beam_alone, BEAM_ONLY),
        "grid": (grid_cost, GRIDS),
    }
    for name, (measure, cases) in tables.items():
        found[name] = [measure(*case) for case in cases]
        for row in found[name]:
            print(name, row)
    brute = equal_to_brute_force()
    print(f"brute force: {brute}")
    write_result("thresholds", {**found, "brute_force": brute})


if __name__ == "__main__":
    main()
