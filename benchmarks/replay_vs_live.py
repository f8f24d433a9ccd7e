"""Replay against the live engine: the same rows at the same times, p50 and p95 of both.

The original model, a fixed plan with exits and the default controller, at four loads, in turns over
several rounds; latencies are measured anew before each round. Writes results/replay_vs_live.json.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from _common import write_result
from _demo import ROOT, demo_checkpoint

from apparate_jax.bench.comparison import Answers
from apparate_jax.bench.feed import feed
from apparate_jax.bench.live import Recorder, send
from apparate_jax.bench.record import record
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.replay import ReplayConfig, replay
from apparate_jax.bench.replayed import policy
from apparate_jax.bench.workload import Times, arrivals
from apparate_jax.checkpoint import Checkpoint, is_checkpoint, load_checkpoint
from apparate_jax.control.interface import Controller, fixed
from apparate_jax.core import ExitPlan
from apparate_jax.data import load_data
from apparate_jax.data.dataset import Dataset
from apparate_jax.graph import trace
from apparate_jax.serve import Service, prepare
from apparate_jax.serve.cache import enable_compilation_cache
from apparate_jax.serve.profile import measure

LOADS = (0.2, 0.4, 0.6, 0.8)
ROUNDS = 3
REQUESTS = 160
SYSTEMS = ("vanilla", "fixed", "controlled")
KEYS = ("p50_ms", "p95_ms")
DEMO = ROOT / "runs" / "demo"


def parts() -> tuple[Checkpoint, Dataset]:
    """The demo's checkpoint and stream, made where they are not there yet."""
    there = is_checkpoint(DEMO / "checkpoint")
    checkpoint = load_checkpoint(DEMO / "checkpoint") if there else demo_checkpoint()
    stream = DEMO / "reviews-stream.csv"
    if not stream.is_file():
        sys.path.insert(0, str(ROOT / "examples"))
        import imdb

        imdb.write("stream", stream, limit=6000)
    return checkpoint, load_data(stream, checkpoint.model, limit=600)


def figures(answers: Answers) -> dict[str, float]:
    """Percentiles, and the mean batch shape that explains them."""
    p50, p95 = np.percentile(answers.latency_ms, (50, 95))
    return {
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "mean_ms": round(float(answers.latency_ms.mean()), 2),
        "mean_shape": round(float(answers.shape.mean()), 2),
    }


class Bench:
    """One recording and one service, compared load by load."""

    def __init__(self) -> None:
        checkpoint, self.data = parts()
        model = checkpoint.model
        self.service: Service = prepare(checkpoint)
        program = trace(model.apply, model.params, *model.example_inputs(1))
        self.recording: Recording = record(
            program,
            model,
            checkpoint.ramps,
            self.data,
            self.service.profile,
            validation=checkpoint.validation,
        )
        begun = policy(self.recording, self.service.config.control)
        plan = begun.plan(begun.init())
        sites = self.service.profile.sites
        open_ = plan.thresholds if max(plan.thresholds, default=0) > 0 else (0.1,) * len(sites)
        self.plan = ExitPlan(sites, open_)

    def controller(self, name: str) -> Controller:
        """The policy of a system."""
        if name == "controlled":
            return policy(self.recording, self.service.config.control)
        return fixed(self.plan if name == "fixed" else ExitPlan())

    def live(self, name: str, times: Times, first: int) -> Answers:
        """Serve rows from ``first`` on at these times."""
        recorder = Recorder(len(self.service.programs.sites))
        examples = feed(self.data, self.service.programs.model, first, len(times))
        if name == "vanilla":
            with self.service.vanilla(recorder) as engine:
                send(engine, examples, times)
            return recorder.take()
        engine, feedback = self.service.apparate(recorder, controller=self.controller(name))
        with engine:
            feedback.attach(engine)
            send(engine, examples, times)
        feedback.close()
        return recorder.take()

    def round(self, index: int) -> Iterator[dict[str, Any]]:
        """All loads and systems once, after measuring what batches take now."""
        profile = measure(self.service.programs, self.service.profile.sites)
        recording = replace(self.recording, profile=profile)
        largest = profile.shapes[-1]
        capacity = largest.batch / largest.vanilla_ms * 1e3
        for load in LOADS:
            times = arrivals(
                "poisson", load * capacity, REQUESTS, seed=100 * index + int(10 * load)
            )
            first = index * REQUESTS
            for name in SYSTEMS if index % 2 == 0 else SYSTEMS[::-1]:
                lived = self.live(name, times, first)
                config = ReplayConfig(first_row=first % len(recording))
                made = replay(recording, self.controller(name), times, config)
                row = {
                    "round": index,
                    "load_frac": load,
                    "system": name,
                    "rate_rps": round(load * capacity, 2),
                    "live": figures(lived),
                    "replay": figures(made.answers),
                    "load_average": round(os.getloadavg()[0], 2),
                }
                row["ratio"] = {key: row["replay"][key] / row["live"][key] for key in KEYS}
                print(row, flush=True)
                yield row


def main() -> None:
    """Compare in several rounds; medians of the rounds' ratios."""
    enable_compilation_cache()
    bench = Bench()
    rows = [row for index in range(ROUNDS) for row in bench.round(index)]
    bench.service.programs.close()
    medians = []
    for load in LOADS:
        for name in SYSTEMS:
            same = [r for r in rows if (r["load_frac"], r["system"]) == (load, name)]
            ratios = {k: round(float(np.median([r["ratio"][k] for r in same])), 3) for k in KEYS}
            medians.append({"load_frac": load, "system": name, "replay_over_live": ratios})
            print(medians[-1])
    off = [abs(m["replay_over_live"][k] - 1) for m in medians for k in KEYS]
    write_result(
        "replay_vs_live",
        {
            "target": "p50 and p95 within 10 % each",
            "worst": round(max(off), 3),
            "within_target": sum(x <= 0.1 for x in off),
            "of": len(off),
            "medians": medians,
            "plan": {"sites": bench.plan.sites, "thresholds": bench.plan.thresholds},
            "rounds": rows,
        },
    )


if __name__ == "__main__":
    main()
