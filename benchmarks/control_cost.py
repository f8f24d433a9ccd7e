"""What control costs: a batch's feedback on the serving path, a tuning, and a choice of the set.

The default controller with a full window, three active ramps of twelve, batches of 1 and 8 inputs.
Feedback and tunings run on a thread of their own, beside the one that releases answers. Writes
results/control_cost.json.
"""

import statistics
import time
from typing import Any

import numpy as np
from _common import write_result
from _windows import typical_window

from apparate_jax.control.config import ControlConfig
from apparate_jax.control.controller import make_controller
from apparate_jax.control.interface import Observation, Shadow
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.thresholds import first_exits
from apparate_jax.core import Profile, ShapeProfile
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.ramps.train import Validation

SITES = tuple(range(12))
ACTIVE = (2, 5, 8)
TOTAL_MS = 12.0
TARGET_US = 50.0
UPDATES = 4000


def latency() -> LatencyModel:
    """A profile of round numbers, of twelve sites evenly spaced."""
    sites = tuple(TOTAL_MS * (s + 1) / 13 for s in SITES)
    release = tuple(sites[s] for s in ACTIVE)
    shapes = tuple(
        ShapeProfile(b, TOTAL_MS, TOTAL_MS + 0.3, release, sites, (0.1,) * 12, TOTAL_MS / 13)
        for b in (1, 2, 4, 8)
    )
    return LatencyModel(Profile("synthetic", "", ACTIVE, shapes))


def measure(batch: int) -> dict[str, Any]:
    """Microseconds of updates with nothing due, milliseconds of the others."""
    config = ControlConfig()
    errors, agrees, _ = typical_window(config.samples, len(SITES), 0)
    held_out = Validation(
        SITES,
        np.arange(len(errors)),
        errors,
        (~agrees).astype(np.int32),
        np.zeros(len(errors), np.int32),
    )
    controller = make_controller(
        config, ACTIVE, latency(), validation=held_out, placement=PlacementConfig(ramp_budget=1.0)
    )
    state = controller.init()
    plan = controller.plan(state)
    quiet: list[float] = []
    tuning: list[float] = []
    choosing: list[float] = []
    for count in range(UPDATES):
        rows = np.arange(count * batch, (count + 1) * batch) % len(errors)
        columns = list(plan.sites)
        exits = first_exits(errors[rows][:, columns], plan.thresholds).astype(np.int32)
        shadow = Shadow(SITES, errors[rows], agrees[rows]) if count % 16 == 0 else None
        seen = Observation(
            plan.sites, errors[rows][:, columns], agrees[rows][:, columns], exits, batch, 0, shadow
        )
        before = state
        start = time.perf_counter()
        plan, state, info = controller.update(state, seen)
        elapsed = time.perf_counter() - start
        chose = state.shadow.since < before.shadow.since
        (choosing if chose else quiet if info.tuning is None else tuning).append(elapsed)
    return {
        "batch": batch,
        "update_us": round(statistics.median(quiet) * 1e6, 1),
        "update_p99_us": round(float(np.percentile(quiet, 99)) * 1e6, 1),
        "target_us": TARGET_US,
        "tuning_ms": round(statistics.median(tuning) * 1e3, 2),
        "choice_ms": round(statistics.median(choosing) * 1e3, 2),
        "updates": len(quiet),
        "tunings": len(tuning),
        "choices": len(choosing),
    }


def main() -> None:
    """Measure both batch sizes."""
    rows = [measure(batch) for batch in (1, 8)]
    for row in rows:
        print(
            f"batch {row['batch']}: update {row['update_us']} us (p99 {row['update_p99_us']}), "
            f"tuning {row['tuning_ms']} ms, choice {row['choice_ms']} ms"
        )
    write_result("control_cost", {"window": ControlConfig().samples, "rows": rows})


if __name__ == "__main__":
    main()
