"""The guard's frontier: what constant rates of wrong answers keep and hold, and its picture.

Two lines, at many rates. **Hindsight**: the best constant thresholds, tuned on the very stream that
they are measured on. **The tuner alone**: thresholds tuned to the rate on the last samples, as our
controller does, but without a promise, so that the rate that is asked for never changes. What our
promises lose against the second they lose by changing it; the rest is what not knowing the stream
costs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.study_plot import LIMIT, OTHERS, OURS
from apparate_jax.control.exact import MAX_CANDIDATES, num_candidates
from apparate_jax.control.thresholds import first_exits, tune_ladder

RATES = tuple(
    round(0.01 * share, 5)
    for share in (0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)
)
"""Shares of wrong answers that hindsight's thresholds are tuned for."""
TUNER_RATES = (0.002, 0.003, 0.004, 0.005, 0.007, 0.01)
"""Shares that the tuner alone is asked for."""
FEW = 0.05
"""Share of windows above the constraint that the promise ``window`` is measured against."""
TARGETS = {"window": 0.82, "long-run": 0.95}
"""Share of hindsight's saving that each promise was to keep."""
FIGURES = ("kept_frac", "disagreement", "windows_above_frac")

Stream = tuple[NDArray[np.float32], NDArray[np.bool_]]
Row = dict[str, float]


def hindsight(
    given: Stream, savings: NDArray[np.float32], rates: Sequence[float] = RATES
) -> dict[float, NDArray[np.int64]]:
    """Where each answer leaves under the best constant thresholds, for each rate.

    Rates that allow more wrong answers than the exact search takes are left out: the longest
    streams go up to 1.2 %.

    Args:
        given: Errors f32[n, R] and agreement bool[n, R].
        savings: f32[R], what an exit at each ramp saves, in ms.
        rates: Shares of wrong answers to tune for.
    """
    errors, agrees = given
    limits = {rate: int(rate * len(errors) + 1e-9) for rate in rates}
    limits = {r: n for r, n in limits.items() if num_candidates(n, len(savings)) <= MAX_CANDIDATES}
    table = tune_ladder(errors, agrees, savings, len(errors), list(limits.values()))
    return {rate: first_exits(errors, row) for rate, row in zip(limits, table, strict=True)}


def means(runs: Sequence[list[Row]]) -> list[Row]:
    """Means over the seeds, a row for each rate."""
    return [
        {key: round(float(np.mean([row[key] for row in rows])), 5) for key in rows[0]}
        for rows in zip(*runs, strict=True)
    ]


def between(rows: Sequence[Row], key: str, value: float) -> Row | None:
    """The point of a frontier where a figure has a value, on the line between its neighbours.

    Args:
        rows: Of the frontier; the figure rises along them.
        key: Of the figure.
        value: What it is; the result is None if it is not on the frontier.
    """
    at = [row[key] for row in rows]
    if not at[0] <= value <= at[-1]:
        return None
    return {
        one: round(float(np.interp(value, at, [row[one] for row in rows])), 5) for one in rows[0]
    }


def report(runs: Sequence[Mapping[str, list[Row]]], promises: Mapping[str, Any]) -> dict[str, Any]:
    """A stream's two lines, our promises beside them, and where few windows are above.

    Args:
        runs: ``hindsight`` and ``tuner`` rows of each seed.
        promises: Each promise's cell of the same stream.
    """
    lines = {name: means([run[name] for run in runs]) for name in ("hindsight", "tuner")}
    points = {}
    for name, cell in promises.items():
        point = {key: cell[key]["mean"] for key in FIGURES}
        beside = {
            f"at_the_same_{key}": {n: between(rows, key, point[key]) for n, rows in lines.items()}
            for key in ("disagreement", "windows_above_frac")
        }
        points[name] = {**point, **beside}
    few = {name: between(rows, "windows_above_frac", FEW) for name, rows in lines.items()}
    return {"runs": len(runs), **lines, "few_windows_above": few, "promises": points}


LOWEST = 51.0
"""Where the lines that stand upright are named, on the vertical axis."""
LABELS = {"independent": "20,000 answers", "long": "50,000 answers"}
LINES = {"hindsight": (OTHERS[1], "hindsight"), "tuner": (OTHERS[4], "tuner alone")}
MARKS = {"none": (OTHERS[0], "s"), "long-run": (OURS, "o"), "window": (OTHERS[2], "D")}


def plot(frontier: Mapping[str, Any], eps: float, path: Path) -> None:
    """Kept against disagreement, and against the share of windows above, as PNG.

    Args:
        frontier: A report of each stream, see :func:`report`.
        eps: The constraint.
        path: Where to write it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, frontier, "disagreement")
    left.axvline(100 * eps, color=LIMIT, ls="--", lw=1)
    left.axhline(100 * TARGETS["long-run"], color=OURS, ls=":", lw=1.2)
    left.annotate("target of long-run", (0.2, 100 * TARGETS["long-run"] + 0.8), color=OURS)
    left.annotate("constraint", (100 * eps + 0.015, LOWEST), color=LIMIT)
    left.set_xlabel("answers that differ from the original's, %")
    left.set_ylabel("saving kept, % of hindsight's at the constraint")
    _panel(right, frontier, "windows_above_frac")
    right.axvline(100 * FEW, color=LIMIT, ls="--", lw=1)
    right.annotate(f"{FEW:.0%} of the windows", (100 * FEW + 1, LOWEST), color=LIMIT)
    target = (100 * FEW, 100 * TARGETS["window"])
    right.scatter(*target, marker="*", s=190, color=MARKS["window"][0], zorder=4)
    right.annotate("target of window", (target[0] + 7, target[1] - 2.5), color=MARKS["window"][0])
    right.set_xlabel("windows of 512 answers above the constraint, %")
    shown = sorted(zip(*left.get_legend_handles_labels(), strict=True), key=lambda one: one[1])
    handles, names = zip(*shown, strict=True)
    figure.legend(handles, names, frameon=False, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, format="png")


def _panel(axes: Any, frontier: Mapping[str, Any], key: str) -> None:
    """Frontiers as lines, promises as points: open ones are of the longer streams."""
    for (name, one), style in zip(frontier.items(), ("-", "--"), strict=True):
        for line, (colour, label) in LINES.items():
            axes.plot(
                [100 * row[key] for row in one[line]],
                [100 * row["kept_frac"] for row in one[line]],
                color=colour,
                ls=style,
                lw=1.6,
                marker=".",
                label=f"{label}, {LABELS[name]}",
            )
        for promise, point in one["promises"].items():
            colour, marker = MARKS[promise]
            axes.scatter(
                100 * point[key],
                100 * point["kept_frac"],
                s=64,
                marker=marker,
                edgecolors=colour,
                facecolors=colour if style == "-" else "none",
                linewidths=1.6,
                zorder=3,
                label=f"{promise}, {LABELS[name]}",
            )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
