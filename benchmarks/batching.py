"""Batching policies on a recorded trace, in replay: latency, goodput and refusals at several loads.

The demo's reviews (runs/traces/imdb.npz, made by benchmarks/traces.py), the original model and
early answers, the three policies on the same Poisson arrivals. Goodput counts answers within the
objective. A full queue refuses, as a server's does. Also what a policy itself costs. Writes
results/batching.json.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
from _common import write_result
from _demo import ROOT

from apparate_jax.bench import forming
from apparate_jax.bench.recording import Recording, load
from apparate_jax.bench.replay import ReplayConfig, replay, saturate
from apparate_jax.bench.replay_result import ReplayResult
from apparate_jax.bench.replayed import policy
from apparate_jax.bench.workload import arrivals
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import Controller, fixed
from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import ExitPlan
from apparate_jax.serve.batching import Request, RequestQueue
from apparate_jax.serve.engine_config import BatchingConfig, EngineConfig
from apparate_jax.serve.timing import Forecast

TRACE = ROOT / "runs" / "traces" / "imdb.npz"
LOADS = (0.3, 0.6, 0.9, 1.5, 3.0)
REQUESTS, SEEDS = 8000, 3
SLO_MS, TIMEOUT_MS = 600.0, 20.0
"""The objective is about three of the slowest full batches; the timeout one input's own time."""
BATCHING = {
    "immediate": BatchingConfig(),
    "timeout": BatchingConfig("timeout", timeout_ms=TIMEOUT_MS),
    "slo": BatchingConfig("slo", slo_ms=SLO_MS),
}
OBJECTIVES_MS = (200.0, 300.0, 400.0, 600.0, 1000.0)
WAITING = (1, 8, 64, 512)


def systems(recording: Recording) -> dict[str, Controller]:
    """The original model, and early answers under the default control."""
    return {"original": fixed(ExitPlan()), "early": policy(recording, ControlConfig())}


def figures(made: ReplayResult, rate: float, capacity: float) -> dict[str, Any]:
    """One replay in numbers."""
    latency_ms, seconds = made.answers.latency_ms, REQUESTS / rate
    p50, p95, p99 = np.percentile(latency_ms, (50, 95, 99))
    refused = {name: count / REQUESTS for name, count in made.refused.counts().items()}
    return {
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "answered_frac": len(made.requests) / REQUESTS,
        "in_time_frac": float((latency_ms <= SLO_MS).sum() / REQUESTS),
        "goodput_frac": float((latency_ms <= SLO_MS).sum() / seconds / capacity),
        "mean_batch": float(made.batches.size.mean()),
        "agreement": float(made.answers.right.mean()),
        "refused_frac": sum(refused.values()),
        **{f"refused: {name}": share for name, share in refused.items()},
    }


def mean(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the seeds; a reason that did not happen is 0."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: round(float(np.mean([row.get(key, 0.0) for row in rows])), 4) for key in keys}


def sweep(recording: Recording) -> tuple[float, list[dict[str, Any]]]:
    """Every policy at every load."""
    capacity = saturate(recording, fixed(ExitPlan()), 4096).throughput_rps
    table = []
    for load_frac in LOADS:
        for name, batching in BATCHING.items():
            for system in ("original", "early"):
                rows = []
                for seed in range(SEEDS):
                    rate = load_frac * capacity
                    times = arrivals("poisson", rate, REQUESTS, seed)
                    engine = EngineConfig(batching=batching)
                    config = ReplayConfig(engine, seed=seed, refuse=True)
                    made = replay(recording, systems(recording)[system], times, config)
                    rows.append(figures(made, rate, capacity))
                row = {"load_frac": load_frac, "batching": name, "system": system, **mean(rows)}
                print(row, flush=True)
                table.append(row)
    return capacity, table


class Blind(Forecast):
    """A forecast that expects nobody to come: admission by what waits alone."""

    def came(self, now_s: float) -> None:
        """Not counted."""


def objectives(recording: Recording, capacity: float) -> list[dict[str, Any]]:
    """Goodput of the original at three times the capacity, by objective and by what is expected."""
    rate, rows = 3.0 * capacity, []
    times = arrivals("poisson", rate, REQUESTS, 0)
    for slo_ms in OBJECTIVES_MS:
        engine = EngineConfig(batching=BatchingConfig("slo", slo_ms=slo_ms))
        row: dict[str, Any] = {"slo_ms": slo_ms}
        for name, kind in (("goodput_frac", Forecast), ("blind_goodput_frac", Blind)):
            forming.Forecast = kind  # type: ignore[misc]
            made = replay(recording, fixed(ExitPlan()), times, ReplayConfig(engine, refuse=True))
            in_time = int((made.answers.latency_ms <= slo_ms).sum())
            row[name] = round(in_time / (REQUESTS / rate) / capacity, 4)
        rows.append(row)
        print(row, flush=True)
    forming.Forecast = Forecast  # type: ignore[misc]
    return rows


def costs(recording: Recording) -> list[dict[str, Any]]:
    """What it costs to submit to a queue with so many waiting, and to form a batch of them."""
    latency, rows = LatencyModel(recording.profile), []
    sizes = latency.batches
    for name, batching in BATCHING.items():
        made = replace(batching, slo_ms=1e7) if name == "slo" else batching
        for waiting in WAITING:
            submit, form = [], []
            for _ in range(200):
                chosen = made.make()
                forecast = Forecast(sizes, 2, latency if chosen.timed else None)
                queue = RequestQueue(
                    4096,
                    lambda now_s, forecast=forecast: forecast.look(now_s, ()),
                    chosen,
                    clock=time.monotonic,
                    came=forecast.came,
                )
                requests = [Request((), 0.0, deadline_s=1e9) for _ in range(waiting)]
                if name != "slo":
                    requests = [Request((), 0.0) for _ in range(waiting)]
                for one in requests[:-1]:
                    queue._line.add(one)  # what waits already
                forecast.look(time.monotonic(), ())  # the first one reads the profile
                begin = time.perf_counter()
                queue.put(requests[-1])
                middle = time.perf_counter()
                queue.poll(time.monotonic())
                form.append((time.perf_counter() - middle) * 1e6)
                submit.append((middle - begin) * 1e6)
            row = {"batching": name, "waiting": waiting}
            row |= {"submit_us": float(np.median(submit)), "form_us": float(np.median(form))}
            rows.append({key: round(v, 2) if key.endswith("us") else v for key, v in row.items()})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write."""
    if not TRACE.is_file():
        print(f"skipped: no {TRACE.relative_to(ROOT)}, run benchmarks/traces.py")
        return
    recording = load(TRACE)
    capacity, table = sweep(recording)
    write_result(
        "batching",
        {
            "trace": TRACE.name,
            "recorded_on": recording.profile.device,
            "slo_ms": SLO_MS,
            "timeout_ms": TIMEOUT_MS,
            "requests": REQUESTS,
            "seeds": SEEDS,
            "capacity_rps": round(capacity, 2),
            "loads": table,
            "objectives at 3x": objectives(recording, capacity),
            "costs": costs(recording),
        },
    )


if __name__ == "__main__":
    main()
