"""A model's state at a glance, as JSON values: for `apparate top`, the page, and scripts."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from apparate_jax.control.guard import Guard, allowed
from apparate_jax.core import FINAL
from apparate_jax.serve.telemetry.counts import SPAN
from apparate_jax.serve.telemetry.statistics import Statistics

PERCENTILES = (25, 50, 95, 99)
LATELY_S = 10.0
"""What throughput is counted over."""
SERVER = "apparate-jax"


def server_status(
    models: Mapping[tuple[str, str], Statistics],
    now_s: float,
    *,
    started_s: float,
    index: Sequence[Mapping[str, str]] = (),
    history: int = 0,
) -> dict[str, Any]:
    """The state of a server and of every model: what ``GET /apparate/status`` answers.

    Args:
        models: Counts by name and version.
        now_s: Seconds of the engine's clock.
        started_s: When the server started, of the same clock.
        index: Entries of the repository's index; models that are not ready and have no counts are
            told as ``unavailable``, with the reason.
        history: Samples of each model's last minutes that come with it.
    """
    running = [
        {"name": name, "version": number, **status_of(counts, now_s, history=history)}
        for (name, number), counts in models.items()
    ]
    names = {name for name, _ in models}
    return {
        "server": {
            "name": SERVER,
            "version": version(SERVER),
            "uptime_s": round(now_s - started_s, 1),
        },
        "models": running,
        "unavailable": [
            dict(entry)
            for entry in index
            if entry["name"] not in names and entry["state"] != "READY"
        ],
    }


def status_of(statistics: Statistics, now_s: float, *, history: int = 0) -> dict[str, Any]:
    """The state of a model.

    Latencies are those of the last answers, arrival to answer. ``vanilla_ms`` is what they would
    have been without early answers: the time to the original model's own answers to the same
    inputs, with the measured cost of the ramps taken off.

    Args:
        statistics: Its counts.
        now_s: Seconds of the engine's clock.
        history: How many samples of the last minutes come with it, as ``history``; see
            :class:`~apparate_jax.serve.telemetry.history.History`.
    """
    with statistics.lock:
        statistics.sample(now_s)
        status = _now(statistics, now_s)
        if history > 0:
            status["history"] = statistics.history.last(history)
        return status


def _now(s: Statistics, now_s: float) -> dict[str, Any]:
    rows = s.recent.rows()
    batches = sum(one.infer.count for one in s.batches.values())
    answers = sum(one.answers for one in s.batches.values())
    latency = _percentiles(s.recent.latency_ms[rows])
    vanilla = _percentiles(s.recent.vanilla_ms[rows])
    tunings = int(s.tunings.counts.sum())
    return {
        "ready": s.ready,
        "uptime_s": round(s.wall() - s.started_s, 1),
        "answers": answers,
        "throughput_rps": round(s.recent.rate(now_s, LATELY_S), 2),
        "latency_ms": latency,
        "vanilla_ms": vanilla,
        "queue": s.waiting,
        "pending_requests": s.pending,
        "mean_batch": round(answers / batches, 2) if batches else 0.0,
        "batches": {str(shape): one.infer.count for shape, one in sorted(s.batches.items())},
        "accuracy": _accuracy(s),
        "exits": _exits(s),
        "control": {
            "tunings": tunings,
            "tuning_ms": round(1e3 * s.tunings.total_s / tunings, 2) if tunings else None,
            "set_changes": s.set_changes,
            "ramps_stopped": sum(s.stopped.values()),
            "shadow_batches": s.shadow_batches,
            "deferred_batches": s.deferred_batches,
            "bare_batches": s.bare_batches,
        },
        "requests": {
            "answered": s.success.count,
            "failed": dict(sorted(s.failures.items())),
        },
        "events": [{"at_s": round(e.at_s, 3), "text": e.text} for e in s.events],
    }


def _accuracy(s: Statistics) -> dict[str, Any]:
    span = s.recent.rows(SPAN)
    guard = Guard(s.max_disagreement, "long-run", answers=s.checked)
    return {
        "promise": s.promise,
        "max_disagreement": round(s.max_disagreement, 9),
        "checked": s.checked,
        "disagreed": s.wrong,
        "allowed": round(allowed(guard), 1),
        "agreement": round(1.0 - s.wrong / s.checked, 6) if s.checked else None,
        "window": len(span),
        "window_disagreed": int(s.recent.wrong[span].sum()),
        "window_allowed": int(s.max_disagreement * SPAN),
    }


def utilities_ms(s: Statistics) -> dict[int, float]:
    """What each active ramp saved per input lately, less what it adds to every answer behind it."""
    sites = s.plan.sites
    if not sites:
        return {}
    model = s.latency_model
    batches = {shape: one.infer.count for shape, one in s.batches.items()}
    usual = max(batches, key=lambda shape: batches[shape], default=model.batches[0])
    exits = s.recent.exits[s.recent.rows()]
    savings, costs = model.savings_ms(sites, usual), model.costs_ms(usual)
    return {
        site: round(float(saved * np.mean(exits == site) - costs[site]), 4) if len(exits) else 0.0
        for site, saved in zip(sites, savings, strict=True)
    }


def _exits(s: Statistics) -> list[dict[str, Any]]:
    exits = s.recent.exits[s.recent.rows()]
    utilities = utilities_ms(s)
    plan = s.plan
    thresholds = dict(zip(plan.sites, plan.thresholds, strict=True))
    rows = []
    for site in [*sorted({*plan.sites, *(x for x in s.exits if x >= 0)}), -1]:
        rows.append(
            {
                "exit": FINAL if site < 0 else s.site_names[site],
                "answers": s.exits[site],
                "share_lately": round(float(np.mean(exits == site)), 4) if len(exits) else 0.0,
                "active": site in thresholds or site < 0,
                "threshold": thresholds.get(site),
                "utility_ms": utilities.get(site),
                "stopped": s.stopped[site],
            }
        )
    return rows


def _percentiles(values: Any) -> dict[str, float | None]:
    if not len(values):
        return {f"p{p}": None for p in PERCENTILES}
    found = np.percentile(values, PERCENTILES)
    return {f"p{p}": round(float(v), 3) for p, v in zip(PERCENTILES, found, strict=True)}
