"""XLA's threads on a core each, or wherever the kernel puts them: latency over HTTP by load.

Woken after a pause, the threads of XLA's pool may all be put on one core, and a batch then takes
nearly as long as on one core until the kernel spreads them. One `apparate serve` at a time, as the
original model and with early answers; its threads are pinned and freed from outside, in turns that
follow one another, at the same Poisson times either way. Then the original beside a process that
takes a core, always or half of the time: a pinned thread cannot move away from it.

Usage: ``python benchmarks/pinning.py [ROUNDS]`` (6 unless given; about 19 minutes, after `just
demo`). Writes results/pinning.json
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import write_result
from _demo import ROOT
from _http_client import closed_loop, inference_request, open_loop
from _served import Served, apparate_serve, free_port

from apparate_jax.checkpoint import load_checkpoint
from apparate_jax.data import load_data
from apparate_jax.serve.cores import pin, pool_threads

LOADS = (0.2, 0.4, 0.6, 0.8)
ROUND_S, CAPACITY_S, SETTLE_S = 6.0, 4.0, 0.5
CLIENTS, ROWS, START_S, LEARN_S = 32, 256, 240.0, 4.0
DEMO = ROOT / "runs" / "demo"
TURNS = ("free", "pinned")
SYSTEMS = {"off": False, "on": True}
"""Early answers."""
NEIGHBOURS = {
    "busy": "while True: pass",
    "half": (
        "import time\n"
        "while True:\n"
        "    end = time.monotonic() + 0.02\n"
        "    while time.monotonic() < end: pass\n"
        "    time.sleep(0.02)"
    ),
}
"""What takes a core, as the text of a program."""
BESIDE_LOADS = (0.2, 0.4)


def turn(port: int, requests: list[bytes], rate: float, seed: int) -> dict[str, float]:
    """Latency of a round, ms."""
    rng = np.random.default_rng(seed)
    due_s = np.cumsum(rng.exponential(1 / rate, round(rate * ROUND_S)))
    asked = [requests[at] for at in rng.integers(len(requests), size=len(due_s))]
    asyncio.run(closed_loop(port, requests, 2, SETTLE_S, 0.0))
    answers = asyncio.run(open_loop(port, asked, due_s))
    latency_ms = np.array([answer.latency_ms for answer in answers])
    if np.isnan(latency_ms).any():
        raise RuntimeError(f"{np.isnan(latency_ms).sum()} of {len(answers)} requests had no answer")
    return {f"p{p}_ms": round(float(np.percentile(latency_ms, p)), 3) for p in (50, 95)}


def put(pid: int, name: str) -> None:
    """Pin the threads of XLA's pool of a process to a core each, or let them go."""
    threads = pool_threads(pid)
    if not threads:
        raise RuntimeError(f"process {pid} has no threads that compute")
    if name == "pinned":
        pin(threads)
        return
    for thread in threads:
        os.sched_setaffinity(thread, os.sched_getaffinity(0))


def by_load(
    served: Served, requests: list[bytes], capacity_rps: float, loads: Sequence[float], rounds: int
) -> dict[str, Any]:
    """Latency at each load, a share of the capacity, in turns."""
    result = {}
    for load in loads:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in TURNS}
        for number in range(rounds):
            for name in TURNS[:: 1 if number % 2 else -1]:
                put(served.pid, name)
                found[name].append(turn(served.port, requests, load * capacity_rps, number))
                print(load, name, found[name][-1], flush=True)
        row: dict[str, Any] = {"rounds": found}
        for key in ("p50_ms", "p95_ms"):
            free, pinned = (np.array([one[key] for one in found[name]]) for name in TURNS)
            row[key] = dict(zip(TURNS, (float(np.median(v)) for v in (free, pinned)), strict=True))
            row[f"{key[:3]}_ratio"] = round(float(np.median(pinned / free)), 4)
        result[str(load)] = row
    return result


def saturated(served: Served, requests: list[bytes], rounds: int) -> dict[str, Any]:
    """Throughput with a queue that is never empty, in turns."""
    full: dict[str, list[float]] = {name: [] for name in TURNS}
    for number in range(rounds):
        for name in TURNS[:: 1 if number % 2 else -1]:
            put(served.pid, name)
            loop = closed_loop(served.port, requests, CLIENTS, CAPACITY_S, SETTLE_S)
            full[name].append(asyncio.run(loop))
            print("full", name, full[name][-1], flush=True)
    ratios = np.array(full["pinned"]) / np.array(full["free"])
    return {"rounds_rps": full, "ratio": round(float(np.median(ratios)), 4)}


@contextlib.contextmanager
def beside(program: str) -> Iterator[None]:
    """A process that runs a program meanwhile."""
    neighbour = subprocess.Popen([sys.executable, "-c", program])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def measure(name: str, requests: list[bytes], rounds: int) -> dict[str, Any]:
    """One server: all loads, saturation and, of the original, beside a neighbour."""
    exits, port = SYSTEMS[name], free_port()
    apparate = Path(sysconfig.get_path("scripts")) / "apparate"
    command = apparate_serve(apparate, DEMO / "checkpoint", port, exits=exits)
    log = ROOT / "runs" / "logs" / f"pinning_{name}.log"
    served = Served("apparate serve", command, port, log)
    try:
        served.wait(requests[0], START_S)
        served.learn(requests, LEARN_S)
        capacity = asyncio.run(closed_loop(port, requests, CLIENTS, CAPACITY_S, SETTLE_S))
        result: dict[str, Any] = {
            "capacity_rps": round(capacity, 1),
            "loads": by_load(served, requests, capacity, LOADS, rounds),
            "saturated": saturated(served, requests, rounds),
        }
        for neighbour, program in ({} if exits else NEIGHBOURS).items():
            print("beside", neighbour, flush=True)
            with beside(program):
                row = by_load(served, requests, capacity, BESIDE_LOADS, rounds)
            result.setdefault("beside", {})[neighbour] = row
        return result
    finally:
        served.stop()


def main() -> None:
    """Measure both and write the result."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    model = load_checkpoint(DEMO / "checkpoint").model
    data = load_data(DEMO / "reviews-stream.csv", model, limit=ROWS)
    rows = [data.example(row, model) for row in range(len(data))]
    requests = [inference_request("/v2/models/model/infer", row) for row in rows]
    exits = {name: measure(name, requests, rounds) for name in SYSTEMS}
    write_result("pinning", {"round_s": ROUND_S, "exits": exits})


if __name__ == "__main__":
    main()
