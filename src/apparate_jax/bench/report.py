"""The report of a comparison: JSON for machines, a table for the shell, a picture for people."""

import os
import platform
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.comparison import AGAIN, SYSTEMS, Answers, Comparison, concatenate
from apparate_jax.core import FINAL, ExitPlan, Profile
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


class Subject(NamedTuple):
    """What was compared.

    Attributes:
        model: Its name.
        workload: Name of the data.
        names: Of all sites.
        depths: Of all sites, 0..1.
        profile: Latency of the ramps that were active at the start.
        accuracy: The accuracy constraint.
    """

    model: str
    workload: str
    names: tuple[str, ...]
    depths: tuple[float, ...]
    profile: Profile
    accuracy: float

    @staticmethod
    def of(service: Service, workload: str) -> "Subject":
        """What a service serves."""
        programs = service.programs
        return Subject(
            programs.model.name,
            workload,
            tuple(site.name for site in programs.sites),
            tuple(site.depth for site in programs.sites),
            service.profile,
            service.config.control.accuracy,
        )


def build_report(
    subject: Subject,
    result: Comparison,
    load_frac: float | None,
    oracle_ms: NDArray[np.float64] | None,
) -> dict[str, Any]:
    """The report with the keys that others rely on.

    Args:
        subject: What was measured.
        result: The measurements.
        load_frac: Mean arrival rate, as a share of the original's throughput; None where the rate
            was given: what it is of the throughput that was measured.
        oracle_ms: Latencies of the oracle, None if it was not asked for.
    """
    answers = {name: concatenate([r.answers[name] for r in result.rounds]) for name in SYSTEMS}
    if load_frac is None:
        capacity = np.median([r.throughput_rps["vanilla"] for r in result.rounds])
        load_frac = round(result.rate_rps / float(capacity), 4)
    report: dict[str, Any] = {
        "model": subject.model,
        "workload": subject.workload,
        "slo_ms": round(2 * subject.profile.shapes[0].vanilla_ms, 3),
        "accuracy_constraint": subject.accuracy,
        "load_frac": load_frac,
        "rate_rps": round(result.rate_rps, 2),
        "requests": len(answers["vanilla"].latency_ms),
    }
    for name in SYSTEMS:
        rates = [r.throughput_rps[name] for r in result.rounds]
        report[name] = percentiles(answers[name].latency_ms)
        report[name]["throughput_rps"] = round(float(np.median(rates)), 2)
    report["apparate"] |= _early(subject, result, answers["apparate"])
    report["oracle"] = {"p50_ms": None} if oracle_ms is None else percentiles(oracle_ms)
    report["compared"] = _compared(result, report)
    report["rounds"] = [_round(r) for r in result.rounds]
    report["profile"] = _profile(subject.profile)
    report["profiled_sites"] = [subject.names[site] for site in subject.profile.sites]
    report["environment"] = environment()
    return report


def _early(subject: Subject, result: Comparison, at_load: Answers) -> dict[str, Any]:
    """What only early answers have: agreement, exits and the plan behind them."""
    every = concatenate([result.outside, at_load])
    exit_rates, shown = _exit_rates(subject, result.plan, at_load)
    thresholds = zip(result.plan.sites, result.plan.thresholds, strict=True)
    return {
        "agreement": round(float(every.right.mean()), 5),
        "agreement_at_load": round(float(at_load.right.mean()), 5),
        "answers_checked": len(every.right),
        "windows_below_constraint": windows_below(every.right, subject.accuracy),
        "exit_rates": exit_rates,
        "thresholds": {subject.names[site]: round(t, 5) for site, t in thresholds},
        "depths": {subject.names[site]: round(subject.depths[site], 4) for site in shown},
        "tunings": result.decisions.tunings,
        "ramps_stopped": result.decisions.stops,
        "overhead_frac": round(overhead_frac(subject.profile), 4),
    }


def _profile(profile: Profile) -> list[dict[str, Any]]:
    return [
        {
            "batch": s.batch,
            "vanilla_ms": round(s.vanilla_ms, 3),
            "total_ms": round(s.total_ms, 3),
            "release_ms": [round(ms, 3) for ms in s.release_ms],
            "overhead_frac": round(s.overhead_frac, 4),
        }
        for s in profile.shapes
    ]


def _exit_rates(
    subject: Subject, plan: ExitPlan, answers: Answers
) -> tuple[dict[str, float], list[int]]:
    """Share of answers by the name of their exit, and the sites that are named.

    Those are the profiled ones, those of the plan, and every other where an answer left.
    """
    count = len(subject.names)
    rates = np.bincount(answers.exits, minlength=count + 1) / max(1, len(answers.exits))
    left = np.flatnonzero(rates[:count]).tolist()
    shown = sorted({*subject.profile.sites, *plan.sites, *left})
    named = {subject.names[site]: round(float(rates[site]), 4) for site in shown}
    return named | {FINAL: round(float(rates[count]), 4)}, shown


def _round(measured: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"first": measured.order[0]}
    for name in measured.answers:
        out[name] = percentiles(measured.answers[name].latency_ms)
        out[name]["throughput_rps"] = round(measured.throughput_rps[name], 2)
    return out


def _compared(result: Comparison, report: dict[str, Any]) -> dict[str, Any]:
    """Paired ratios: medians over the rounds, with their spread."""
    rows = [_round(r) for r in result.rounds]

    def ratio(key: str, system: str = "apparate") -> dict[str, Any]:
        values = [row[system][key] / row["vanilla"][key] for row in rows]
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
    if AGAIN in rows[0]:
        out["noise_floor"] = {
            f"{key.partition('_')[0]}_ratio": ratio(key, AGAIN)
            for key in ("p50_ms", "p95_ms", "throughput_rps")
        }
    if oracle["p50_ms"] is not None:
        out["oracle_p50_saved_frac"] = round(1 - oracle["p50_ms"] / vanilla["p50_ms"], 4)
    return out
