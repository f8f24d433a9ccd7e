"""The same model behind `apparate serve`, LitServe, Ray Serve and Triton: latency and throughput.

One machine, one client process, the same arrivals (Poisson, open loop) and rows for every system,
which take turns in alternating order; who has no turn is paused. Latency counts from the moment
that a request was due. Loads are shares of what `apparate serve` without early answers takes. Needs
the demo's checkpoint (`just demo`) and Python 3.12; environments are made below runs/peers.

Usage: ``python benchmarks/peers.py [ROUNDS] [--fresh]``: about 3 minutes a round, and two to
start. Rounds add to those in results/peers.json of the same versions and settings.
"""

import argparse
import asyncio
import contextlib
import gc
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _common import earlier, machine, write_result
from _demo import ROOT
from _http_client import Answer, closed_loop, open_loop
from _peers_summary import summary
from _peers_systems import ENVIRONMENTS, SYSTEMS, System, install, versions
from _served import Served, free_port
from numpy.typing import NDArray

from apparate_jax.checkpoint import is_checkpoint, load_checkpoint
from apparate_jax.data import load_data

DEMO = ROOT / "runs" / "demo"
LOADS = (0.2, 0.4, 0.6, 0.8)
ROUND_S, SATURATED_S, SETTLE_S = 6.0, 4.0, 0.5
CLIENTS = 32
CHECKED, SAME = 20, 0.8
START_S, LEARN_S = 90.0, 12.0
SETTINGS = {
    "loads": list(LOADS),
    "round_s": ROUND_S,
    "saturated_s": SATURATED_S,
    "clients_at_saturation": CLIENTS,
    "batch_sizes": [1, 2, 4, 8],
    "model": "the demo's MiniLM-L6, 128 tokens, int32 tensors",
}
OFF = SYSTEMS[0].name
FAILURES = (OSError, RuntimeError, EOFError)
Rows = list[dict[str, NDArray[Any]]]


class Turn:
    """A system that runs, and the stream as its requests."""

    def __init__(self, system: System, checkpoint: Path, rows: Rows) -> None:
        self.name, self.learns = system.name, system.learns
        self.requests = [system.encode(row) for row in rows]
        port, package = free_port(), system.package
        self.served = Served(
            self.name,
            system.command(ENVIRONMENTS / package / "bin", checkpoint, port),
            port,
            ENVIRONMENTS / "logs" / f"{self.name.replace(', ', '-').replace(' ', '-')}.log",
            {
                "JAX_COMPILATION_CACHE_DIR": str(ENVIRONMENTS / "cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": ":".join(str(ROOT / part) for part in ("benchmarks", "src", "cli")),
                "RAY_USAGE_STATS_ENABLED": "0",
            },
        )
        try:
            self.served.wait(self.requests[0], START_S)
            self.saturated(2.0)
            if system.learns:
                self.served.learn(self.requests, LEARN_S)
            self.idle_cores = round(self.served.idle_cores(2.0), 3)
            self.rss_mib = round(self.served.rss_mib())
        except BaseException:
            self.served.stop()
            raise
        self.served.pause()

    def saturated(self, seconds: float) -> float:
        """Answers per second with a queue that is never empty."""
        loop = closed_loop(self.served.port, self.requests, CLIENTS, seconds, SETTLE_S)
        return asyncio.run(loop)

    def capacity(self) -> float:
        """Answers per second of a system that was paused."""
        self.awake()
        rate = round(self.saturated(5.0), 2)
        self.served.pause()
        return rate

    def awake(self) -> None:
        """Go on, and answer for a moment, so that the pause is forgotten."""
        self.served.resume()
        with contextlib.suppress(*FAILURES):  # it will show in what is measured
            asyncio.run(closed_loop(self.served.port, self.requests, 2, SETTLE_S, SETTLE_S))
        gc.collect()

    def at(self, due_s: NDArray[np.float64], first: int) -> list[Answer]:
        """Answers to requests that are due at these times."""
        count = len(self.requests)
        asked = [self.requests[(first + i) % count] for i in range(len(due_s))]
        return asyncio.run(open_loop(self.served.port, asked, due_s))


def figures(answers: list[Answer], due_s: NDArray[np.float64]) -> dict[str, Any]:
    """Latency and rate of one turn."""
    latency_ms = np.array([answer.latency_ms for answer in answers])
    there = ~np.isnan(latency_ms)
    if not there.any():
        return {"requests": len(answers), "lost": len(answers)}
    row: dict[str, Any] = {"requests": len(answers), "lost": int((~there).sum())}
    for p in (50, 95, 99):
        row[f"p{p}_ms"] = round(float(np.percentile(latency_ms[there], p)), 3)
    ended_s = float((due_s[there] + latency_ms[there] / 1e3).max())
    row["throughput_rps"] = round(int(there.sum()) / ended_s, 2)
    row["early_frac"] = round(float(np.mean([a.early for a in answers])), 4)
    return row


def one_load(turns: list[Turn], number: int, load: float, rate: float) -> list[dict[str, Any]]:
    """Every system once at a load, on the same arrivals and rows."""
    rng = np.random.default_rng([number, round(100 * load)])
    due_s = np.cumsum(rng.exponential(1 / rate, max(1, round(rate * ROUND_S))))
    first = int(rng.integers(len(turns[0].requests)))
    rows, labels = [], {}
    for turn in turns:
        turn.awake()
        answers = turn.at(due_s, first)
        turn.served.pause()
        labels[turn.name] = np.array([answer.label for answer in answers])
        rows.append({"round": number, "system": turn.name, "load": load, **figures(answers, due_s)})
        print(*rows[-1].values(), flush=True)
    for row in rows:
        if OFF in labels:
            same = labels[row["system"]] == labels[OFF]
            row["agreement"] = round(float(same.mean()), 4)
    return rows


def one_round(turns: list[Turn], number: int, capacity: float) -> list[dict[str, Any]]:
    """Every load, then saturation; who begins changes from load to load."""
    rows: list[dict[str, Any]] = []
    for at, load in enumerate((*LOADS, None)):
        shift = (number + at) % len(turns)
        order = turns[shift:] + turns[:shift]
        if load is not None:
            rows += one_load(order, number, load, load * capacity)
            continue
        for turn in order:
            turn.awake()
            try:
                rate = round(turn.saturated(SATURATED_S), 2)
            except FAILURES as error:
                print(f"{turn.name} failed: {error!r}", file=sys.stderr, flush=True)
                continue
            turn.served.pause()
            rows.append({"round": number, "system": turn.name, "saturated_rps": rate})
            print(*rows[-1].values(), flush=True)
    return rows


def agreement(turn: Turn, first: Turn) -> float:
    """Share of labels that are those of the first system."""
    due_s = np.arange(CHECKED) / 10.0
    labels = []
    for one in {first.name: first, turn.name: turn}.values():
        one.served.resume()
        labels.append([answer.label for answer in one.at(due_s, 0)])
        one.served.pause()
    return float(np.mean(np.equal(labels[0], labels[-1])))


def start(rows: Rows, turns: list[Turn]) -> tuple[dict[str, Any], dict[str, str]]:
    """Start every system, one after the other, into ``turns``; what cannot run says why."""
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for system in SYSTEMS:
        try:
            install(system)
            found[system.name] = {**versions(system), "setup": system.setup}
            turn = Turn(system, DEMO / "checkpoint", rows)
            turns.append(turn)
            if (same := agreement(turn, turns[0])) < SAME:
                turns.pop().served.stop()
                raise RuntimeError(f"its answers are not the model's: {same:.0%} of the labels")
            idle, rss = turns[-1].idle_cores, turns[-1].rss_mib
            print(f"{system.name}: {rss} MiB, {idle} cores when idle", flush=True)
        except FAILURES as error:
            failed[system.name] = str(error) or repr(error)
            print(f"{system.name} cannot run here: {error}", file=sys.stderr, flush=True)
    return found, failed


def control(turns: list[Turn]) -> dict[str, Any]:
    """What control did so far, where there is any."""
    found = {}
    for turn in turns:
        if turn.learns:
            turn.served.resume()
            found[turn.name] = turn.served.control()
            turn.served.pause()
    return found


def before(found: dict[str, Any]) -> dict[str, Any]:
    """What was measured before with the same versions and settings."""
    known = earlier("peers")
    same = known and known["settings"] == SETTINGS and known["systems"] == found
    return known if same else {}


def main() -> None:
    """Measure some rounds and write the summary of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", nargs="?", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="forget the rounds before")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that servers end too
    if not is_checkpoint(DEMO / "checkpoint"):
        sys.exit("no checkpoint in runs/demo: run `just demo` first")
    where, model = machine(), load_checkpoint(DEMO / "checkpoint").model
    data = load_data(DEMO / "reviews-stream.csv", model, limit=3000)
    rows = [data.example(i, model) for i in range(len(data))]
    gc.freeze()
    turns: list[Turn] = []
    try:
        found, failed = start(rows, turns)
        known = {} if args.fresh else before(found)
        capacity = known.get("capacity_rps")
        if capacity is None:
            capacity = turns[0].capacity()
        measured = known.get("rounds", [])
        done = 1 + max((row["round"] for row in measured), default=-1)
        facts = {
            "machine": where,
            "settings": SETTINGS,
            "systems": found,
            "cannot_run_here": failed,
            "capacity_rps": capacity,
            "rss_mib": {turn.name: turn.rss_mib for turn in turns},
            "idle_cores": {turn.name: turn.idle_cores for turn in turns},
        }
        for number in range(done, done + args.rounds):
            measured = measured + one_round(turns, number, capacity)
            facts["control"] = control(turns)
            write_result("peers", {**facts, **summary(measured), "rounds": measured})
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all of them are to end
        for turn in turns:
            turn.served.stop()


if __name__ == "__main__":
    main()
