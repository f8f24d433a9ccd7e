"""A row for each workload of the evaluation, and the project's own targets beside it.

All of it is arithmetic on the parts of ``apparate bench paper``, as they lie in its folder.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apparate_jax.core import FINAL

AT_LEAST = {"images": 0.4, "imdb": 0.4, "amazon": 0.25}
"""Of the median latency, saved: of every workload of images, and of reviews by their name."""
OF_PAST, OF_OPTIMAL = 0.8, 0.5
AGREEMENT, THROUGHPUT, P95 = 0.99, 0.98, 1.02
PAST = ("past-20", "past-40", "past-80")
RATIOS = ("p50_ratio", "p95_ratio", "throughput_ratio")
RIVALS = ("branchynet-opt", "deebert-opt")
"""Tuned with all of the stream, to the same accuracy."""


def read_part(folder: Path, workload: str, part: str) -> dict[str, Any] | None:
    """The result of a part, None if it is not there."""
    path = folder / f"{workload}--{part}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["result"]
    return found


def replayed(result: Mapping[str, Any]) -> dict[str, Any]:
    """What replay says of a workload: means over its seeds.

    Of the optima that are tuned on a past window, which break the constraint, ours is held against
    the one that comes nearest to it.

    Args:
        result: Of the part ``systems``.
    """
    rows = {row["system"]: row for row in result["rows"]}
    ours, oracle = rows["apparate"], rows["oracle"]
    saved = ours["p50_saved_frac"]
    row = {
        "agreement": ours["agreement"],
        "p25_saved_frac": ours["p25_saved_frac"],
        "p50_saved_frac": saved,
        "p95_saved_frac": ours["p95_saved_frac"],
        "p95_ratio": round(1 - ours["p95_saved_frac"], 5),
        "throughput_ratio": ours["throughput_ratio"],
        "early_frac": ours["early_frac"],
        "oracle_p50_saved_frac": oracle["p50_saved_frac"],
        "of_oracle_frac": ratio(saved, oracle["p50_saved_frac"]),
    }
    past = {name: figures(rows[name]) for name in PAST if name in rows}
    nearest = max(past.values(), key=lambda one: one["agreement"], default=None)
    row["nearest_past"] = nearest
    row["of_past_frac"] = None if nearest is None else ratio(saved, nearest["p50_saved_frac"])
    row["past"] = past
    row["rivals"] = {name: figures(rows[name]) for name in RIVALS if name in rows}
    return row


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """What is kept of another system."""
    keys = ("agreement", "p50_saved_frac", "p95_saved_frac", "throughput_ratio")
    return {key: row[key] for key in keys}


def ratio(part: float, whole: float) -> float | None:
    """A share; None of nothing."""
    return round(part / whole, 5) if whole > 0 else None


def live(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the wall clock says of a workload: medians of the paired rounds.

    Args:
        report: Of the part ``live``.
    """
    compared = report["compared"]
    row: dict[str, Any] = {"agreement": report["apparate"]["agreement"]}
    for key in RATIOS:
        row[key] = compared[key]["median"]
        row[f"{key}_rounds"] = compared[key]["rounds"]
        again = compared.get("noise_floor", {}).get(key)
        row[f"{key}_again"] = None if again is None else again["rounds"]
    row["p50_saved_frac"] = round(1 - row["p50_ratio"], 5)
    row["early_frac"] = round(1 - report["apparate"]["exit_rates"].get(FINAL, 0.0), 5)
    return row


def targets(workload: Mapping[str, Any]) -> dict[str, bool]:
    """Which of the project's targets a workload meets, those that are of its kind.

    Args:
        workload: ``name``, ``kind``, ``replay``, and ``live`` or None.
    """
    name, kind, here = workload["name"], workload["kind"], workload["replay"]
    now = workload["live"]
    met = {}
    wanted = AT_LEAST.get(kind, AT_LEAST.get(name))
    if wanted is not None:
        met["saved"] = here["p50_saved_frac"] >= wanted
        if now is not None:
            met["saved, live"] = now["p50_saved_frac"] >= wanted
    if kind == "images" and here["of_past_frac"] is not None:
        met["of the optimum of a past window"] = here["of_past_frac"] >= OF_PAST
    if kind == "text" and here["of_oracle_frac"] is not None:
        met["of optimal"] = here["of_oracle_frac"] >= OF_OPTIMAL
    met["agreement"] = min(one["agreement"] for one in (here, now) if one is not None) >= AGREEMENT
    met["throughput"] = (now or here)["throughput_ratio"] >= THROUGHPUT
    met["p95"] = (now or here)["p95_ratio"] <= P95
    for rival, its in here["rivals"].items():
        met[f"more than {rival}"] = here["p50_saved_frac"] > its["p50_saved_frac"]
    return met


def rows(report: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """A row for each workload of a report.

    Args:
        report: The evaluation's ``report.json``.
        folder: Its parts.
    """
    made = []
    for one in report["workloads"]:
        result = read_part(folder, one["name"], "systems")
        assert result is not None  # there is no report without it
        clocked = read_part(folder, one["name"], "live")
        row = {
            **one,
            "replay": replayed(result),
            "live": None if clocked is None else live(clocked),
        }
        made.append(row | {"met": targets(row)})
    return made
