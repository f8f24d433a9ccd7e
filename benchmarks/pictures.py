"""The pictures of the documents that are of result files: who is answered when, and what is saved.

Writes docs/early-release.png (a batch of the demo, by its measured profile), docs/latency.png
(percentiles of the demo, and the median by load beside the noise floor) and docs/evaluation.png
(the median saved of every workload of the paper's evaluation). Nothing is measured here: run it
again when results/demo.json, results/load_live.json or results/paper.json changed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS

from apparate_jax.bench.paper.draw import plot_overview
from apparate_jax.bench.paper.published import published
from apparate_jax.bench.plot import COLOURS
from apparate_jax.core import FINAL

DOCS = Path(__file__).parent.parent / "docs"
BATCH = 4
"""Of which the timeline is; a middle one of the demo's shapes."""
TINTS = ("#99d5cd", "#5fb5aa", "#2f9488", "#0f766e")
PERCENTILES = ("p25", "p50", "p95", "p99")
Bar = tuple[float, float, str]


def read(name: str) -> dict[str, Any]:
    """A result file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def stages(report: dict[str, Any]) -> list[Bar]:
    """When each stage of a batch ends and what leaves then: (start ms, end ms, label)."""
    (shape,) = (s for s in report["profile"] if s["batch"] == BATCH)
    ends = [*shape["release_ms"], shape["total_ms"]]
    names = [*report["profiled_sites"], FINAL]
    starts = [0.0, *ends[:-1]]
    return [
        (start, end, f"{rate:.0%} leave\n{name}\n{end:.0f} ms")
        for start, end, name, rate in zip(starts, ends, names, left_by(report, names), strict=True)
    ]


def left_by(report: dict[str, Any], names: list[str]) -> list[float]:
    """Shares of answers by the stages of the profiled set.

    The set may have changed in the run: who left at another site counts to the next stage's end.
    """
    depths = {**report["apparate"]["depths"], FINAL: 1.0}
    shares = [0.0] * len(names)
    for site, rate in report["apparate"]["exit_rates"].items():
        shares[next(i for i, name in enumerate(names) if depths[name] >= depths[site])] += rate
    return shares


def new_figure(width: float, height: float) -> Any:
    """An empty figure that can be saved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def timeline(report: dict[str, Any], path: Path) -> None:
    """Draw a batch as one program and as stages whose ramps answer early."""
    figure = new_figure(10, 3.2)
    axes = figure.subplots()
    (shape,) = (s for s in report["profile"] if s["batch"] == BATCH)
    whole = shape["vanilla_ms"]
    axes.barh(1, whole, height=0.34, color=COLOURS["vanilla"])
    axes.text(whole / 2, 1, "one program", ha="center", va="center", color="white")
    axes.annotate(
        f"all answers\n{whole:.0f} ms", (whole, 1), (4, 0), textcoords="offset points", va="center"
    )
    for number, (start, end, label) in enumerate(stages(report)):
        axes.barh(0, end - start, left=start, height=0.34, color=TINTS[number], edgecolor="white")
        axes.plot([end, end], [-0.17, -0.32], color=COLOURS["apparate"], lw=1.5)
        axes.text(end, -0.36, label, ha="center", va="top", fontsize=9)
    axes.set_yticks([1, 0], ["original", "early answers"])
    axes.set_ylim(-1.05, 1.4)
    axes.set_xlim(0, whole * 1.18)
    axes.set_xlabel(f"ms since a batch of {BATCH} was dispatched")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")


def latency(report: dict[str, Any], live: dict[str, Any], path: Path) -> None:
    """Draw percentiles of the demo, and ratios of the median by load."""
    figure = new_figure(10, 3.6)
    left, right = figure.subplots(1, 2)
    for number, (name, label) in enumerate(
        (("vanilla", "original"), ("apparate", "early answers"), ("oracle", "oracle"))
    ):
        values = [report[name][f"{p}_ms"] for p in PERCENTILES]
        places = [at + (number - 1) * 0.27 for at in range(len(values))]
        left.bar(places, values, 0.25, color=COLOURS[name], label=label)
        for place, value in zip(places, values, strict=True):
            left.text(place, value, f"{value:.0f}", ha="center", va="bottom", fontsize=8)
    left.set_xticks(range(len(PERCENTILES)), PERCENTILES)
    left.set_ylabel("latency in ms")
    left.set_title(f"the demo, {report['load_frac']:.0%} load", fontsize=10)
    left.legend(frameon=False)
    _by_load(right, live)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")


def _by_load(axes: Any, live: dict[str, Any]) -> None:
    loads = [100 * row["load_frac"] for row in live["loads"]]
    ratios = [row["p50"] for row in live["loads"]]
    floor = [ratio["again"]["middle_half"] for ratio in ratios]
    axes.fill_between(
        loads,
        [low for low, _ in floor],
        [high for _, high in floor],
        color=COLOURS["vanilla"],
        alpha=0.25,
        lw=0,
        label="the original against itself",
    )
    medians = [ratio["median"] for ratio in ratios]
    lows = [ratio["median"] - ratio["middle_half"][0] for ratio in ratios]
    highs = [ratio["middle_half"][1] - ratio["median"] for ratio in ratios]
    axes.errorbar(
        loads, medians, [lows, highs], fmt="o-", color=COLOURS["apparate"], label="early answers"
    )
    axes.axhline(1, color=COLOURS["vanilla"], lw=1)
    axes.set_xticks(loads, [f"{load:.0f} %" for load in loads])
    halves = [one["middle_half"] for ratio in ratios for one in (ratio, ratio["again"])]
    axes.set_ylim(np.min(halves, initial=0.5) - 0.05, np.max(halves, initial=1.3) + 0.05)
    axes.set_xlabel("load, of the original's capacity")
    axes.set_ylabel("median latency over the original's")
    axes.set_title(f"live, medians of {live['rounds']} rounds and their middle half", fontsize=10)
    axes.legend(frameon=False, loc="upper left")


def evaluation(paper: dict[str, Any], path: Path) -> None:
    """Draw the median saved of each workload: ours, the optimum, the paper's range."""
    rows = []
    for one in paper["workloads"]:
        theirs = published("p50 saved", one["kind"])
        rows.append(
            {
                "workload": one["name"],
                "ours": 100 * one["replay"]["p50_saved_frac"],
                "optimal": 100 * one["replay"]["oracle_p50_saved_frac"],
                "paper": None if theirs is None else (theirs.low, theirs.high),
            }
        )
    plot_overview(rows, path)


def main() -> None:
    """Draw all."""
    report = read("demo")["report"]
    timeline(report, DOCS / "early-release.png")
    latency(report, read("load_live"), DOCS / "latency.png")
    evaluation(read("paper"), DOCS / "evaluation.png")


if __name__ == "__main__":
    main()
