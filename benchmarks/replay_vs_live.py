"""Replay against the live engine: the same rows at the same times, p50 and p95 of both.

The original model, a fixed plan with exits and the default controller, at four loads, in turns over
several rounds; and the original a second time, whose ratio over the first is how well a live run
predicts the same live run: the noise floor that no simulation can beat. Two comparisons: "profile"
replays with latencies measured anew before each round; "paced" also with how much slower than the
profile the device was in the course of the live run, so that a neighbour who comes or goes is not
taken for an error of the simulation. Which requests share a batch, wait, and leave where is
simulated in both. Writes results/replay_vs_live.json.
"""

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from _common import write_result
from _demo import ROOT, demo_checkpoint

from apparate_jax.bench.comparison import Answers, answers_of
from apparate_jax.bench.feed import feed
from apparate_jax.bench.live import Recorder, send
from apparate_jax.bench.record import record
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.replay import Pace, ReplayConfig, replay
from apparate_jax.bench.replayed import policy
from apparate_jax.bench.workload import Times, arrivals
from apparate_jax.checkpoint import Checkpoint, is_checkpoint, load_checkpoint
from apparate_jax.control.interface import Controller, fixed
from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import BatchRecord, ExitPlan, Profile
from apparate_jax.data import load_data
from apparate_jax.data.dataset import Dataset
from apparate_jax.graph import trace
from apparate_jax.serve import Service, prepare
from apparate_jax.serve.cache import enable_compilation_cache
from apparate_jax.serve.profile import measure, rested

LOADS = (0.2, 0.4, 0.6, 0.8)
ROUNDS = 5
SEGMENT_S, REQUESTS = 6.0, (60, 400)
SYSTEMS = ("vanilla", "fixed", "controlled", "again")
KEYS = ("p50_ms", "p95_ms")
TOLERANCE = 0.1
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
    return checkpoint, load_data(stream, checkpoint.model, limit=400)


def figures(answers: Answers) -> dict[str, float]:
    """Percentiles, and the mean batch shape that explains them."""
    p50, p95 = np.percentile(answers.latency_ms, (50, 95))
    return {
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "mean_ms": round(float(answers.latency_ms.mean()), 2),
        "mean_shape": round(float(answers.shape.mean()), 2),
    }


def pace_of(profile: Profile, records: list[BatchRecord], begun_s: float) -> Pace:
    """How much slower than the profile the device was, batch by batch of a live run.

    Of each batch by what it took to its first answers, from when it was handed over or, if that is
    later, from when the device was through with what came before: it runs one thing after another.
    What is left of a batch that let others go first runs at times that are not in its record, so
    whoever may have waited for that says nothing.
    """
    latency, since, factors = LatencyModel(profile), [0.0], [1.0]
    free_s, known = -math.inf, True
    for ready_s, position, batch in answers_in_order(records):
        if position == 0:
            known = known or free_s <= batch.dispatched_s
            start_s = max(batch.dispatched_s, free_s)
            if known and batch.shadow is None and start_s < ready_s:
                took_ms = latency.answers_ms(batch.sites, batch.shape)[0]
                since.append(max(start_s - begun_s, since[-1]))
                factors.append((ready_s - start_s) * 1e3 / took_ms)
        free_s = ready_s
        if position == len(batch.sites):
            known = known and not batch.deferred_s
            if batch.shadow is not None:  # the other heads follow
                ramp_ms = profile.at(batch.shape).ramp_ms
                free_s += sum(ms for s, ms in enumerate(ramp_ms) if s not in batch.sites) / 1e3
    return Pace(tuple(since), tuple(factors))


def answers_in_order(records: list[BatchRecord]) -> list[tuple[float, int, BatchRecord]]:
    """When each active ramp's answers and the original's came, which one's, and of which batch."""
    found = [
        (ready_s, position, batch)
        for batch in records
        for position, ready_s in enumerate((*batch.ready_s, batch.finished_s))
    ]
    return sorted(found, key=lambda one: one[0])


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
        # the middle site where the ramp budget allows none at the start
        sites = self.service.profile.sites or (len(program.sites) // 2,)
        open_ = plan.thresholds if max(plan.thresholds, default=0) > 0 else (0.1,) * len(sites)
        self.plan = ExitPlan(sites, open_)

    def controller(self, name: str) -> Controller:
        """The policy of a system."""
        if name == "controlled":
            return policy(self.recording, self.service.config.control)
        return fixed(self.plan if name == "fixed" else ExitPlan())

    def live(self, name: str, times: Times, first: int) -> list[BatchRecord]:
        """Serve rows from ``first`` on at these times."""
        recorder = Recorder(len(self.service.programs.sites))
        examples = feed(self.data, self.service.programs.model, first, len(times))
        if name in ("vanilla", "again"):
            with self.service.vanilla(recorder) as engine:
                send(engine, examples, times)
            return recorder.records
        engine, feedback = self.service.apparate(recorder, controller=self.controller(name))
        with engine:
            feedback.attach(engine)
            send(engine, examples, times)
        feedback.close()
        return recorder.records

    def round(self, index: int) -> Iterator[dict[str, Any]]:
        """All loads and systems once, after measuring what batches take now."""
        programs = self.service.programs
        profile = rested(programs, measure(programs, self.plan.sites))
        recording = replace(self.recording, profile=profile)
        largest = profile.shapes[-1]
        capacity = largest.batch / largest.vanilla_ms * 1e3
        for load in LOADS:
            rate = load * capacity
            count = int(np.clip(rate * SEGMENT_S, *REQUESTS))
            times = arrivals("poisson", rate, count, seed=100 * index + int(10 * load))
            first = index * REQUESTS[1]
            original: dict[str, float] = {}
            for name in SYSTEMS:
                records = self.live(name, times, first)
                lived = figures(answers_of(records, len(recording.site_names)))
                original = original or lived
                row = {
                    "round": index,
                    "load_frac": load,
                    "system": name,
                    "rate_rps": round(rate, 2),
                    "requests": count,
                    "load_average": round(os.getloadavg()[0], 2),
                    "live": lived,
                }
                plain = ReplayConfig(first_row=first % len(recording))
                begun_s = float(records[0].arrived_s[0] - times[0])
                pace = replace(plain, pace=pace_of(profile, records, begun_s))
                for kind, config in (("profile", plain), ("paced", pace)):
                    made = replay(recording, self.controller(name), times, config)
                    found = figures(made.answers)
                    ratio = {key: round(found[key] / lived[key], 3) for key in KEYS}
                    row[kind] = {**found, "over_live": ratio}
                if name == "again":
                    ratio = {key: round(lived[key] / original[key], 3) for key in KEYS}
                    row["live_again"] = {"over_live": ratio}
                print(row, flush=True)
                yield row


def _median(rows: list[dict[str, Any]], load: float, name: str) -> dict[str, Any]:
    same = [r for r in rows if (r["load_frac"], r["system"]) == (load, name)]
    made: dict[str, Any] = {"load_frac": load, "system": name}
    for kind in ("profile", "paced"):
        made[kind] = {
            key: round(float(np.median([r[kind]["over_live"][key] for r in same])), 3)
            for key in KEYS
        }
    print(made, flush=True)
    return made


def _within(rows: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """Share of single rounds whose ratio is within the target, by load."""
    shares = {}
    for load in LOADS:
        found = [r[kind]["over_live"] for r in rows if r["load_frac"] == load and kind in r]
        near = [abs(ratio[key] - 1) <= TOLERANCE for ratio in found for key in KEYS]
        shares[str(load)] = round(float(np.mean(near)), 3)
    return shares


def main() -> None:
    """Compare in several rounds; medians of the rounds' ratios."""
    enable_compilation_cache()
    bench = Bench()
    rows = [row for index in range(ROUNDS) for row in bench.round(index)]
    bench.service.programs.close()
    medians = [_median(rows, load, name) for load in LOADS for name in SYSTEMS[:-1]]
    off = {
        kind: [abs(row[kind][key] - 1) for row in medians for key in KEYS]
        for kind in ("profile", "paced")
    }
    write_result(
        "replay_vs_live",
        {
            "target": "p50 and p95 within 10 % each",
            **{
                kind: {
                    "worst": round(max(values), 3),
                    "within_target": sum(x <= TOLERANCE for x in values),
                    "of": len(values),
                }
                for kind, values in off.items()
            },
            "single_rounds_within_target": {
                kind: _within(rows, kind) for kind in ("profile", "paced", "live_again")
            },
            "medians": medians,
            "plan": {"sites": bench.plan.sites, "thresholds": bench.plan.thresholds},
            "rounds": rows,
        },
    )


if __name__ == "__main__":
    main()
