"""Pictures of the evaluation that no study has: latency, agreement over time, the overview."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparate_jax.bench.paper.measure import SHARES
from apparate_jax.bench.study_plot import LIMIT, OURS

GREY = "#6b7280"
LINES = {
    "vanilla": GREY,
    "apparate": OURS,
    "oracle": "#d97706",
    "paper": "#1d4ed8",
    "two-layer": "#b91c1c",
    "initial-only": "#7c3aed",
    "uniform": "#d97706",
}
"""Of systems; the first three as in the pictures of comparisons."""
SHOWN = 95.0
"""Percentile of the original's latency up to which distributions are shown, with some room."""


def _figure(width: float, height: float, panels: int, **more: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, squeeze=False, **more)[0]


def plot_latency(result: Mapping[str, Any], title: str, path: Path) -> None:
    """Distributions of latency, and where answers leave, as PNG.

    Args:
        result: With ``curves`` and ``exit_rates``, of
            :func:`apparate_jax.bench.paper.measure.systems`.
        title: Of the picture.
        path: Where to write it.
    """
    figure, (axes, exits) = _figure(11.5, 4.4, 2, width_ratios=[1.5, 1])
    curves = result["curves"]
    for name, values in curves.items():
        style = "--" if name == "oracle" else "-"
        width = 2.4 if name == "apparate" else 1.6
        label = {"vanilla": "the original", "oracle": "optimal"}.get(name, name)
        axes.plot(values, SHARES / 100, style, color=LINES[name], lw=width, label=label)
    last = float(np.interp(SHOWN, SHARES, curves.get("vanilla") or next(iter(curves.values()))))
    axes.set_xlim(0, 1.3 * last)
    axes.set_ylim(0, 1)
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("share of answers")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    rates = result["exit_rates"]
    exits.barh(range(len(rates)), [100 * rate for rate in rates.values()], color=OURS)
    exits.set_yticks(range(len(rates)), list(rates), fontsize=8)
    exits.invert_yaxis()
    exits.set_xlabel("answers that leave there, %")
    exits.grid(alpha=0.25, axis="x")
    exits.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, format="png")


def plot_held(result: Mapping[str, Any], accuracy: float, title: str, path: Path) -> None:
    """Agreement over time against the constraint, as PNG.

    Args:
        result: With ``agreement``, of :func:`apparate_jax.bench.paper.measure.systems`.
        accuracy: The constraint.
        title: Of the picture.
        path: Where to write it.
    """
    figure, (moving, overall) = _figure(11.5, 4.0, 2, sharey=True)
    for name, one in result["agreement"].items():
        for axes, key in ((moving, "last"), (overall, "so_far")):
            width = 2.0 if name == "apparate" else 1.2
            shown = 100 * np.asarray(one[key])
            axes.plot(one["answers"], shown, color=LINES[name], lw=width, label=name)
        moving.set_title(f"the last {one['window']} answers", fontsize=9)
    overall.set_title("all answers so far", fontsize=9)
    for axes in (moving, overall):
        limit = 100 * accuracy
        axes.axhline(limit, color=LIMIT, ls="--", lw=1, label=f"constraint, {limit:g} %")
        axes.set_xlabel("answers")
        axes.grid(alpha=0.25)
    moving.set_ylabel("agreement with the original, %")
    overall.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, format="png")


def plot_overview(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Median saved of each workload: ours and the optimum, on the paper's range, as PNG.

    Args:
        rows: With ``workload``, ``ours`` and ``optimal`` in per cent, and ``paper``: a range or
            None.
        path: Where to write it.
    """
    figure, (axes,) = _figure(9.5, 1.3 + 0.55 * len(rows), 1)
    labels = {"paper": "the paper's range", "ours": "apparate-jax", "optimal": "optimal here"}
    points = {"optimal": ("D", 60, LINES["oracle"]), "ours": ("o", 110, OURS)}
    for at, row in enumerate(rows):
        if row["paper"] is not None:
            low, high = row["paper"]
            label = labels.pop("paper", None)
            axes.barh(at, high - low, left=low, height=0.5, color="#d1d5db", label=label)
        for key, (marker, size, colour) in points.items():
            if row[key] is not None:
                label = labels.pop(key, None)
                more = {"s": size, "color": colour, "label": label, "zorder": 3}
                axes.scatter(row[key], at, marker=marker, **more)
    axes.axvline(0, color=GREY, lw=1)
    axes.set_yticks(range(len(rows)), [row["workload"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("median latency saved, %")
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, format="png")
