"""MLPerf LoadGen, Server scenario, against `apparate serve` with early answers and without.

LoadGen (``pip install mlcommons-loadgen``) sends single samples over HTTP at Poisson times and says
whether a run is VALID: the 99th percentile below the bound, with the confidence that its early
stopping asks for. Both systems run once at the stated rate, half of what the original takes, then
the highest VALID rate of each is searched by bisection, in turns; who has no turn is paused. The
bound is twice what the original model takes for a full batch. Runs are far shorter than a
submission's (600 s).

Usage: ``python benchmarks/loadgen.py`` (about 8 minutes, after `just demo`). Writes
results/loadgen.json.
"""

import asyncio
import gc
import re
import signal
import sys
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from _common import machine, paired, write_result
from _demo import ROOT
from _http_client import Answer, Client, closed_loop, inference_request
from _peers_model import LARGEST, Classifier
from _served import Served, apparate_serve, free_port

from apparate_jax.checkpoint import is_checkpoint, load_checkpoint
from apparate_jax.data import load_data

try:
    import mlperf_loadgen as lg
except ImportError:
    sys.exit("MLPerf LoadGen is not installed: pip install mlcommons-loadgen")

DEMO = ROOT / "runs" / "demo"
STATED_FRAC, PERCENTILE = 0.5, 0.99
BETWEEN_FRACS, STEPS = (0.4, 0.95), 3
DURATION_S, LEARN_S = 20.0, 12.0
SAMPLES = 1024
PATH = "/v2/models/model/infer"
KEYS = {
    "p50_ms": "50.00 percentile latency (ns)",
    "p90_ms": "90.00 percentile latency (ns)",
    "p99_ms": "99.00 percentile latency (ns)",
}


class Sut:
    """Hands LoadGen's samples to a server; answers come on an event loop of its own thread."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._requests, self._port = requests, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = Client(port)
        self.answers: list[Answer] = []
        self.failed: list[str] = []
        self._thread.start()

    def issue(self, samples: list[Any]) -> None:
        """LoadGen's callback: send samples, do not wait."""
        asked = [(sample.id, sample.index) for sample in samples]
        self._loop.call_soon_threadsafe(self._send, asked)

    def _send(self, asked: list[tuple[int, int]]) -> None:
        for number, index in asked:
            task = self._loop.create_task(self._one(number, index))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, number: int, index: int) -> None:
        try:
            self.answers.append(await self._client.ask(self._requests[index]))
        except Exception as error:
            self.failed.append(f"{type(error).__name__}: {error}")
        lg.QuerySamplesComplete([lg.QuerySampleResponse(number, 0, 0)])

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._client.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def settings(qps: float, bound_ms: float) -> Any:
    """What LoadGen is to do."""
    chosen = lg.TestSettings()
    chosen.scenario = lg.TestScenario.Server
    chosen.mode = lg.TestMode.PerformanceOnly
    chosen.server_target_qps = qps
    chosen.server_target_latency_ns = int(bound_ms * 1e6)
    chosen.server_target_latency_percentile = PERCENTILE
    chosen.min_duration_ms = int(DURATION_S * 1e3)
    chosen.min_query_count = 1
    return chosen


def parsed(summary: str) -> dict[str, Any]:
    """LoadGen's own words: its verdict, its rate, its percentiles."""

    def number(label: str) -> float:
        found = re.search(rf"^{re.escape(label)}\s*:\s*([\d.]+)", summary, re.MULTILINE)
        return float(found[1]) if found else float("nan")

    verdict = re.search(r"^Result is : (\w+)", summary, re.MULTILINE)
    reasons = re.findall(r"^\s+\* (.+)$|^\s*(.+ : NO)$", summary, re.MULTILINE)
    return {
        "valid": verdict is not None and verdict[1] == "VALID",
        "completed_rps": number("Completed samples per second"),
        **{key: round(number(label) / 1e6, 2) for key, label in KEYS.items()},
        "reasons": [" ".join(filter(None, one)).strip() for one in reasons],
    }


def run(served: Served, requests: list[bytes], qps: float, bound_ms: float) -> dict[str, Any]:
    """One run of LoadGen against a server that was paused."""
    served.resume()
    asyncio.run(closed_loop(served.port, requests, 4, 1.0, 0.5))
    gc.collect()
    sut = Sut(served.port, requests)
    handle = lg.ConstructSUT(sut.issue, lambda: None)
    library = lg.ConstructQSL(len(requests), len(requests), lambda _: None, lambda _: None)
    log = lg.LogSettings()
    with tempfile.TemporaryDirectory() as place:
        log.log_output.outdir = place
        log.log_output.copy_summary_to_stdout = False
        log.enable_trace = False
        lg.StartTestWithLogSettings(handle, library, settings(qps, bound_ms), log)
        summary = (Path(place) / "mlperf_log_summary.txt").read_text()
    lg.DestroyQSL(library)
    lg.DestroySUT(handle)
    sut.close()
    served.pause()
    row = {"target_qps": round(qps, 2), **parsed(summary), "queries": len(sut.answers)}
    row["early_frac"] = round(sum(a.early for a in sut.answers) / max(1, len(sut.answers)), 4)
    row["failed"] = len(sut.failed)
    row["valid"] = row["valid"] and not sut.failed
    print(served.name, row, flush=True)
    return row


def bound_of(place: Path, row: dict[str, Any]) -> float:
    """Twice the original model's time for a full batch, ms."""
    classifier = Classifier(str(place))
    inputs = [np.repeat(array[None], LARGEST, axis=0) for array in row.values()]
    times = paired({"full": lambda: classifier.logits(*inputs)}, 20)["full"]
    return round(2e3 * float(np.median(times)), 1)


def start(name: str, exits: bool, requests: list[bytes]) -> Served:
    """A server, warm and paused."""
    apparate = Path(sys.executable).parent / "apparate"
    port = free_port()
    command = apparate_serve(apparate, DEMO / "checkpoint", port, exits=exits)
    served = Served(name, command, port, ROOT / "runs" / "loadgen" / f"{name}.log")
    try:
        served.wait(requests[0], 240.0)
        asyncio.run(closed_loop(port, requests, 16, 2.0, 1.0))
        served.learn(requests, LEARN_S)
    except BaseException:
        served.stop()
        raise
    served.pause()
    return served


def measured(
    systems: dict[str, Served], requests: list[bytes], capacity: float, bound_ms: float
) -> dict[str, Any]:
    """Both at the stated rate, then the bisection, in turns."""
    found: dict[str, Any] = {
        name: {"stated": run(served, requests, STATED_FRAC * capacity, bound_ms), "search": []}
        for name, served in systems.items()
    }
    between = dict.fromkeys(systems, BETWEEN_FRACS)
    for _ in range(STEPS):
        for name, served in systems.items():
            low, high = between[name]
            middle = (low + high) / 2
            row = run(served, requests, middle * capacity, bound_ms)
            between[name] = (middle, high) if row["valid"] else (low, middle)
            found[name]["search"].append(row)
    for rows in found.values():
        tried = [rows["stated"], *rows["search"]]
        rates = [row["target_qps"] for row in tried if row["valid"]]
        rows["highest_valid_qps"] = max(rates, default=None)
    return found


def main() -> None:
    """Start both, run LoadGen, write what it said."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that servers end too
    if not is_checkpoint(DEMO / "checkpoint"):
        sys.exit("no checkpoint in runs/demo: run `just demo` first")
    where, model = machine(), load_checkpoint(DEMO / "checkpoint").model
    data = load_data(DEMO / "reviews-stream.csv", model, limit=SAMPLES)
    rows = [data.example(i, model) for i in range(len(data))]
    requests = [inference_request(PATH, row) for row in rows]
    bound_ms = bound_of(DEMO / "checkpoint", rows[0])
    systems: dict[str, Served] = {}
    try:
        for name, exits in (("vanilla", False), ("apparate", True)):
            systems[name] = start(name, exits, requests)
        vanilla = systems["vanilla"]
        vanilla.resume()
        capacity = asyncio.run(closed_loop(vanilla.port, requests, 32, 5.0, 1.0))
        vanilla.pause()
        found = measured(systems, requests, capacity, bound_ms)
        systems["apparate"].resume()
        found["apparate"]["control"] = systems["apparate"].control()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all of them are to end
        for served in systems.values():
            served.stop()
    payload = {
        "loadgen": version("mlcommons-loadgen"),
        "scenario": "Server, PerformanceOnly, HTTP with binary tensors",
        "capacity_rps": round(capacity, 2),
        "stated_frac": STATED_FRAC,
        "bound_ms": bound_ms,
        "percentile": PERCENTILE,
        "min_duration_s": DURATION_S,
        "search": {"between_fracs": BETWEEN_FRACS, "steps": STEPS},
        "machine_before": where,
        "systems": found,
    }
    write_result("loadgen", payload)


if __name__ == "__main__":
    main()
