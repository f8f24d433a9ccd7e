"""How fast replay is: requests simulated per second of one core. Writes results/replay_speed.json.

A plan with exits that never changes, at light loads (batches of 1-2) and with a queue that is never
empty (full batches); and the default controller, whose own work then counts.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import write_result

from apparate_jax.bench.recording import Part, Recording
from apparate_jax.bench.replay import ReplayConfig, replay, saturate
from apparate_jax.bench.replay_result import ReplayResult
from apparate_jax.bench.replayed import policy
from apparate_jax.bench.workload import arrivals
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import fixed
from apparate_jax.control.load import always
from apparate_jax.core import ExitPlan, Profile, ShapeProfile
from apparate_jax.ramps.train import Validation

SPREAD = (0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.3)
ROWS, SITES, ACTIVE = 6000, 12, (0, 6, 8)
REQUESTS, ROUNDS, TARGET = 200_000, 3, 50_000


def stream() -> Recording:
    """Twelve sites; ramps are the surer and the more often right the deeper they lie."""
    rng = np.random.default_rng(0)
    shape = (ROWS, SITES)
    final = rng.integers(0, 2, ROWS).astype(np.int32)
    errors = (rng.uniform(0, 0.5, shape) ** np.linspace(1, 6, SITES)).astype(np.float32)
    wrong = rng.uniform(size=shape) < errors
    predictions = np.where(wrong, 1 - final[:, None], final[:, None]).astype(np.int32)
    depths = np.linspace(0.08, 0.99, SITES)
    profile = Profile("paper", "0", ACTIVE, tuple(_shape(b, depths) for b in (1, 2, 4, 8)))
    held = slice(0, 500)
    return Recording(
        model="paper",
        workload="paper",
        site_names=tuple(f"site_{i}" for i in range(SITES)),
        depths=tuple(depths.tolist()),
        ramps=tuple(range(SITES)),
        errors=errors,
        predictions=predictions,
        final_predictions=final,
        profile=profile,
        device="paper",
        jax_version="0",
        parts=(Part("paper", 0),),
        validation=Validation(
            tuple(range(SITES)), np.arange(500), errors[held], predictions[held], final[held]
        ),
    )


def _shape(batch: int, depths: np.ndarray) -> ShapeProfile:
    vanilla_ms = 10.0 * batch**0.9
    release = tuple(float(vanilla_ms * depths[site]) + 0.1 for site in ACTIVE)
    site_ms = tuple((vanilla_ms * depths).tolist())
    ramps = (0.1,) * SITES
    return ShapeProfile(batch, vanilla_ms, vanilla_ms + 0.3, release, site_ms, ramps, 0.1, SPREAD)


def timed(name: str, run: Callable[[], ReplayResult], requests: int) -> dict[str, Any]:
    """The median over the rounds, in processor time: others on the machine do not count."""
    rates, wall = [], []
    for _ in range(ROUNDS):
        start, begun = time.process_time(), time.perf_counter()
        made = run()
        rates.append(requests / (time.process_time() - start))
        wall.append(requests / (time.perf_counter() - begun))
    row = {
        "requests_per_cpu_s": round(float(np.median(rates))),
        "requests_per_wall_s": round(float(np.median(wall))),
        "rounds": [round(r) for r in rates],
        "mean_batch": round(requests / len(made.batches.size), 2),
        "exit_frac": round(float((made.answers.exits < SITES).mean()), 3),
    }
    print(name, row, flush=True)
    return row


def main() -> None:
    """Time every case."""
    recording, plan = stream(), fixed(ExitPlan(ACTIVE, (0.05, 0.001, 0.001)))
    result = {}
    for rate in (20, 60, 90):
        times = arrivals("poisson", rate, REQUESTS)
        run = lambda times=times: replay(recording, plan, times)  # noqa: E731
        result[f"fixed plan, {rate} requests/s"] = timed(f"{rate}/s", run, REQUESTS)
    full = ReplayConfig(load_policy=always)
    result["fixed plan, saturated"] = timed(
        "saturated", lambda: saturate(recording, plan, REQUESTS, full), REQUESTS
    )
    controller, few = policy(recording, ControlConfig()), REQUESTS // 10
    times = arrivals("poisson", 40, few)
    result["default controller, 40 requests/s"] = timed(
        "controlled", lambda: replay(recording, controller, times), few
    )
    write_result("replay_speed", {"target_requests_per_s": TARGET, **result})


if __name__ == "__main__":
    main()
