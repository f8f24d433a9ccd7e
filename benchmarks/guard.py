"""The guard: what each promise holds and what it costs, on quiet, shifting and adversarial streams.

The controller drives synthetic streams in closed loop, one batch late, none of them put off. Three
ramps see the original's margin through noise, so that they agree with it on 85, 90 and 96 % of the
inputs, and a hundredth of the inputs is answered wrong with confidence. Kept is the saving as a
share of what the best constant thresholds with hindsight save on the same stream. Writes
results/guard.json.

The frontier beside it says what can be had at all: constant thresholds with hindsight, and our
tuner without a promise, at many rates. It is drawn into docs/guard-frontier.png. With the name of
a part, ``streams`` or ``frontier``, only that is run.
"""

import multiprocessing
import sys
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import _frontier
import jax.scipy.special
import numpy as np
from _common import earlier, write_result
from numpy.typing import NDArray

from apparate_jax.control import guard
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.controller import make_controller
from apparate_jax.control.interface import Observation
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.thresholds import first_exits, tune_thresholds
from apparate_jax.core import Profile, ShapeProfile
from apparate_jax.ramps.train import Validation
from apparate_jax.serve.engine import EngineConfig

SITES = (3, 6, 9)
RELEASE_MS = (2.5, 5.0, 7.3)
TOTAL_MS = 9.0
NOISE = (0.5, 0.3, 0.12)
SURE_BUT_WRONG = 0.01
ANSWERS = 20_000
LONG = 50_000
HELD_OUT = 300
BATCH = 4
SEEDS = 20
SPAN = guard.SPAN
EPS = 0.01
PROMISES = ("none", "long-run", "window")
STREAMS = ("independent", "long", "drift", "shift", "bursts", "worst")
FRONTIER_SEEDS = {"independent": 10, "long": 4}
PICTURE = Path(__file__).parent.parent / "docs" / "guard-frontier.png"

Stream = tuple[NDArray[np.float32], NDArray[np.bool_]]


def drawn(rng: np.random.Generator, count: int, harder: NDArray[np.float64], sure: float) -> Stream:
    """Errors and agreement at every ramp; the noise is ``harder`` times the usual one."""
    margin, common = rng.normal(size=(2, count))
    sure_but_wrong = rng.random(count) < sure
    until = rng.integers(1, len(SITES) + 1, count)
    errors, agrees = [], []
    for ramp, usual in enumerate(NOISE):
        noise = usual * harder
        own = rng.normal(size=count)
        seen = margin + noise * (np.sqrt(0.6) * common + np.sqrt(0.4) * own)
        # ramps are as sure as they were trained to be, however hard it has become
        distance = np.abs(seen) / (usual * np.sqrt(1 + usual**2))
        errors.append(np.asarray(jax.scipy.special.ndtr(-distance)))
        flipped = sure_but_wrong & (ramp < until) & (rng.random(count) < 0.7)
        agrees.append(((seen > 0) == (margin > 0)) ^ flipped)
    return np.stack(errors, axis=1).astype(np.float32), np.stack(agrees, axis=1)


def stream(kind: str, seed: int) -> Stream:
    """A stream of this kind: errors f32[n, 3] and agreement bool[n, 3]."""
    rng = np.random.default_rng(seed)
    count = LONG if kind == "long" else ANSWERS
    harder = np.ones(count)
    if kind == "drift":
        harder = np.linspace(0.7, 1.6, count)
    if kind == "shift":
        harder[count // 2 :] = 2.0
    errors, agrees = drawn(rng, count, harder, SURE_BUT_WRONG)
    if kind == "bursts":  # quiet, then every early answer is wrong for a while
        bad = (np.arange(count) // 250) % 8 == 7
        agrees[bad] = False
    if kind == "worst":
        agrees[:] = False
        errors[:] = 0.001
    return errors, agrees


def held_out(seed: int) -> Validation:
    """What training would have held out of the independent stream."""
    errors, agrees = drawn(
        np.random.default_rng(10_000 + seed), HELD_OUT, np.ones(HELD_OUT), SURE_BUT_WRONG
    )
    labels = np.zeros(HELD_OUT, np.int32)
    return Validation(SITES, np.arange(HELD_OUT), errors, (~agrees).astype(np.int32), labels)


def latency() -> LatencyModel:
    """A profile of round numbers."""
    sites = tuple(TOTAL_MS * (i + 1) / 12 for i in range(11))
    shapes = tuple(
        ShapeProfile(b, 8.9, TOTAL_MS, RELEASE_MS, sites, (0.05,) * 11, TOTAL_MS / 12)
        for b in (1, 2, 4, 8)
    )
    return LatencyModel(Profile("synthetic", "", SITES, shapes))


def play(config: ControlConfig, seed: int, given: Stream) -> tuple[NDArray[np.int64], int]:
    """Serve a stream under the controller: where each answer left, and how often a ramp stopped."""
    errors, agrees = given
    controller = make_controller(config, SITES, latency(), validation=held_out(seed))
    state = controller.init()
    plan, left, stops = controller.plan(state), 0, 0
    exits = np.empty(len(errors), np.int64)
    late: Observation | None = None
    for start in range(0, len(errors), BATCH):
        rows = slice(start, start + BATCH)
        out = first_exits(errors[rows], plan.thresholds)
        for row in np.argsort(out, kind="stable"):
            if out[row] < len(SITES):
                allowed = plan.exit_cap is None or left < plan.exit_cap
                left += allowed
                out[row] = out[row] if allowed else len(SITES)
        exits[rows] = out
        if late is not None:
            plan, state, info = controller.update(state, late)
            stops += len(info.stopped)
        late = Observation(SITES, errors[rows], agrees[rows], out.astype(np.int32), BATCH)
    return exits, stops


def judge(
    kind: str, given: Stream, exits: NDArray[np.int64], stops: int, *, kept: bool = True
) -> dict[str, float]:
    """What a run held, and unless it is said not to, what it kept where nothing changes."""
    errors, agrees = given
    savings = np.asarray(latency().savings_ms(SITES, 1), np.float32)
    saved = np.append(savings, 0.0)[exits].mean()
    right = np.append(agrees, np.ones((len(agrees), 1), bool), axis=1)
    wrong = ~right[np.arange(len(exits)), exits]
    total, count = np.cumsum(wrong), np.arange(1, len(wrong) + 1)
    spans = np.convolve(wrong, np.ones(SPAN), "valid")
    out = {
        "saved_frac": float(saved) / TOTAL_MS,
        "disagreement": float(wrong.mean()),
        "moments_above_frac": float((total > EPS * count)[guard.REPAID :].mean()),
        "windows_above_frac": float((spans > EPS * SPAN).mean()),
        "stops": float(stops),
    }
    if kept and kind in FRONTIER_SEEDS:
        out["kept_frac"] = float(saved) / tune_thresholds(errors, agrees, savings, EPS).saving
    if kind == "shift":
        half = len(wrong) // 2
        out["wrong_in_next_512"] = float(wrong[half : half + SPAN].sum())
        out["running_512_after"] = float(spans[half])
        out["running_disagreement_after"] = float(total[half + SPAN] / count[half + SPAN])
    return out


def control(eps: float, promise: str) -> ControlConfig:
    """Settings for a stream in which no answered batch is put off."""
    config = ControlConfig(accuracy=1.0 - eps, promise=promise, policy="fixed")  # type: ignore[arg-type]
    return EngineConfig(defer=0).suited(config)


def run(job: tuple[str, str, int]) -> tuple[str, str, dict[str, float]]:
    """One stream under one promise."""
    kind, promise, seed = job
    given = stream(kind, seed)
    return kind, promise, judge(kind, given, *play(control(EPS, promise), seed, given))


def frontier_run(job: tuple[str, int]) -> tuple[str, dict[str, list[_frontier.Row]]]:
    """What constant rates keep and hold on one stream: hindsight's, and our tuner's."""
    kind, seed = job
    given = stream(kind, seed)
    savings = np.asarray(latency().savings_ms(SITES, 1), np.float32)
    best = _frontier.hindsight(given, savings)
    whole = judge(kind, given, best[EPS], 0, kept=False)["saved_frac"]

    def row(rate: float, exits: NDArray[np.int64]) -> _frontier.Row:
        found = judge(kind, given, exits, 0, kept=False)
        found["kept_frac"] = found["saved_frac"] / whole
        return {"rate": rate, **{key: found[key] for key in _frontier.FIGURES}}

    tuned = {rate: play(control(rate, "none"), seed, given)[0] for rate in _frontier.TUNER_RATES}
    lines = {"hindsight": best, "tuner": tuned}
    return kind, {
        name: [row(r, exits) for r, exits in line.items()] for name, line in lines.items()
    }


def frontier(cells: dict[str, Any], pool: Pool) -> dict[str, Any]:
    """The frontier of each stream on which nothing changes, with the measured promises."""
    jobs = [(kind, seed) for kind, seeds in FRONTIER_SEEDS.items() for seed in range(seeds)]
    runs = pool.map(frontier_run, jobs, chunksize=1)
    out = {}
    for kind in FRONTIER_SEEDS:
        found = _frontier.report([lines for k, lines in runs if k == kind], cells[kind])
        out[kind] = found
        for line, point in found["few_windows_above"].items():
            print(f"{kind:12} {_frontier.FEW:.0%} of the windows above, {line}: {point}")
    _frontier.plot(out, EPS, PICTURE)
    return out


def streams(pool: Pool) -> dict[str, Any]:
    """Every stream under every promise."""
    jobs = [
        (kind, promise, seed)
        for kind in STREAMS
        for promise in PROMISES
        for seed in range(5 if kind == "long" else SEEDS)
    ]
    runs = pool.map(run, jobs, chunksize=1)
    result: dict[str, Any] = {kind: {} for kind in STREAMS}
    for kind in STREAMS:
        for promise in PROMISES:
            rows = [row for k, p, row in runs if (k, p) == (kind, promise)]
            cell = {key: _summary(key, [row[key] for row in rows]) for key in rows[0]}
            result[kind][promise] = {"runs": len(rows), **cell}
            kept = f"kept {cell['kept_frac']['mean']:.1%}  " if "kept_frac" in cell else ""
            print(
                f"{kind:12} {promise:9} saved {cell['saved_frac']['mean']:.1%}  {kept}"
                f"disagreement {cell['disagreement']['mean']:.2%} "
                f"(worst {cell['disagreement']['worst']:.2%})  windows above "
                f"{cell['windows_above_frac']['mean']:.1%} "
                f"(worst {cell['windows_above_frac']['worst']:.1%})"
            )
    return result


def _summary(key: str, values: list[float]) -> dict[str, float]:
    worst = min if key in ("saved_frac", "kept_frac") else max
    return {"mean": round(float(np.mean(values)), 5), "worst": round(worst(values), 5)}


def main() -> None:
    """Run what was asked for, or everything, on as many processes as there are cores."""
    asked = set(sys.argv[1:]) or {"streams", "frontier"}
    if unknown := asked - {"streams", "frontier"}:
        sys.exit(f"unknown parts {sorted(unknown)}, expected streams or frontier")
    done = earlier("guard")
    cells, found = done.get("streams"), done.get("frontier")
    with multiprocessing.get_context("spawn").Pool() as pool:
        if "streams" in asked or cells is None:
            cells = streams(pool)
        if "frontier" in asked or found is None:
            found = frontier(cells, pool)
    setup = {"answers": ANSWERS, "long": LONG, "batch": BATCH, "accuracy": 1.0 - EPS}
    write_result("guard", {"setup": setup, "streams": cells, "frontier": found})


if __name__ == "__main__":
    main()
