"""The report of a live run: JSON for machines, a table for the shell, a picture for people."""

import os
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.live import SYSTEMS, Answers, LiveConfig, LiveResult, concatenate
from apparate_jax.core import FINAL
from apparate_jax.serve.profile import device_name
from apparate_jax.serve.service import Service, overhead_frac

WINDOW = 512
WINDOW_STEP = 64
PERCENTILES = (25, 50, 95, 99)


def environment() -> dict[str, Any]:
    """The machine and the versions that figures were measured with."""
    return {
        "device": device_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "platform": platform.platform(terse=True),
    }


def percentiles(latency_ms: NDArray[np.float64]) -> dict[str, float]:
    """The report's latency percentiles in ms."""
    values = np.percentile(latency_ms, PERCENTILES)
    return {f"p{p}_ms": round(float(v), 3) for p, v in zip(PERCENTILES, values, strict=True)}


def windows_below(right: NDArray[np.bool_], accuracy: float) -> float | None:
    """Share of windows of 512 answers whose agreement is below the constraint.

    None if there were fewer answers than that.
    """
    if len(right) < WINDOW:
        return None
    total = np.concatenate([[0], np.cumsum(right)])
    starts = np.arange(0, len(right) - WINDOW + 1, WINDOW_STEP)
    agreement = (total[starts + WINDOW] - total[starts]) / WINDOW
    return round(float((agreement < accuracy).mean()), 4)


def build_report(
    service: Service,
    result: LiveResult,
    config: LiveConfig,
    workload: str,
    oracle_ms: NDArray[np.float64] | None,
) -> dict[str, Any]:
    """The report with the keys that others rely on.

    Args:
        service: What was measured.
        result: The measurements.
        config: Settings of the benchmark.
        workload: Name of the data.
        oracle_ms: Latencies of the oracle, None if it was not asked for.
    """
    accuracy = service.config.control.accuracy
    answers = {name: concatenate([r.answers[name] for r in result.rounds]) for name in SYSTEMS}
    early = concatenate([result.outside, answers["apparate"]])
    sites = [service.programs.sites[s] for s in service.profile.sites]
    names = [site.name for site in sites] + [FINAL]
    report: dict[str, Any] = {
        "model": service.programs.model.name,
        "workload": workload,
        "slo_ms": round(2 * service.profile.shapes[0].vanilla_ms, 3),
        "accuracy_constraint": accuracy,
        "load_frac": config.load_frac,
        "rate_rps": round(result.rate_rps, 2),
        "requests": len(answers["vanilla"].latency_ms),
    }
    for name in SYSTEMS:
        rates = [r.throughput_rps[name] for r in result.rounds]
        report[name] = percentiles(answers[name].latency_ms)
        report[name]["throughput_rps"] = round(float(np.median(rates)), 2)
    report["apparate"] |= {
        "agreement": round(float(early.right.mean()), 5),
        "agreement_at_load": round(float(answers["apparate"].right.mean()), 5),
        "answers_checked": len(early.right),
        "windows_below_constraint": windows_below(early.right, accuracy),
        "exit_rates": _exit_rates(answers["apparate"], names),
        "thresholds": {
            site.name: round(t, 5) for site, t in zip(sites, result.plan.thresholds, strict=True)
        },
        "depths": {site.name: round(site.depth, 4) for site in sites},
        "tunings": result.decisions.tunings,
        "ramps_stopped": result.decisions.stops,
        "overhead_frac": round(overhead_frac(service.profile), 4),
    }
    report["oracle"] = {"p50_ms": None} if oracle_ms is None else percentiles(oracle_ms)
    report["compared"] = _compared(result, report)
    report["rounds"] = [_round(r) for r in result.rounds]
    report["profile"] = [
        {
            "batch": s.batch,
            "vanilla_ms": round(s.vanilla_ms, 3),
            "total_ms": round(s.total_ms, 3),
            "release_ms": [round(ms, 3) for ms in s.release_ms],
            "overhead_frac": round(s.overhead_frac, 4),
        }
        for s in service.profile.shapes
    ]
    report["environment"] = environment()
    return report


def _exit_rates(answers: Answers, names: Sequence[str]) -> dict[str, float]:
    counts = np.bincount(answers.exits, minlength=len(names)) / max(1, len(answers.exits))
    return {name: round(float(c), 4) for name, c in zip(names, counts, strict=True)}


def _round(measured: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"first": measured.order[0]}
    for name in SYSTEMS:
        out[name] = percentiles(measured.answers[name].latency_ms)
        out[name]["throughput_rps"] = round(measured.throughput_rps[name], 2)
    return out


def _compared(result: LiveResult, report: dict[str, Any]) -> dict[str, Any]:
    """Paired ratios: medians over the rounds, with their spread."""
    rows = [_round(r) for r in result.rounds]

    def ratio(key: str) -> dict[str, Any]:
        values = [row["apparate"][key] / row["vanilla"][key] for row in rows]
        return {
            "median": round(float(np.median(values)), 4),
            "rounds": [round(v, 4) for v in values],
        }

    vanilla, early, oracle = report["vanilla"], report["apparate"], report["oracle"]
    out: dict[str, Any] = {
        "p50_saved_frac": round(1 - early["p50_ms"] / vanilla["p50_ms"], 4),
        "p50_ratio": ratio("p50_ms"),
        "p95_ratio": ratio("p95_ms"),
        "throughput_ratio": ratio("throughput_rps"),
    }
    if oracle["p50_ms"] is not None:
        out["oracle_p50_saved_frac"] = round(1 - oracle["p50_ms"] / vanilla["p50_ms"], 4)
    return out
