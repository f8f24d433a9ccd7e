"""The picture of a comparison: latency, exits and agreement at a glance."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.comparison import Answers, Comparison, concatenate

COLOURS = {"vanilla": "#6b7280", "apparate": "#0f766e", "oracle": "#d97706"}


def plot_comparison(
    report: dict[str, Any],
    result: Comparison,
    oracle_ms: NDArray[np.float64] | None,
    path: Path,
) -> None:
    """Draw a comparison as PNG.

    Args:
        report: From :func:`apparate_jax.bench.report.build_report`.
        result: The measurements.
        oracle_ms: Latencies of the oracle, if any.
        path: Where to write it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    latency, exits, agreement = figure.subplots(1, 3, width_ratios=[1.25, 0.9, 1])
    _latency(latency, report, result, oracle_ms)
    _exits(exits, report)
    early = concatenate([result.outside, *(r.answers["apparate"] for r in result.rounds)])
    _agreement(agreement, early, report["accuracy_constraint"])
    saved = report["compared"]["p50_saved_frac"]
    figure.suptitle(
        f"{report['model']} on {report['workload']}: median latency "
        f"{report['vanilla']['p50_ms']:.1f} ms to {report['apparate']['p50_ms']:.1f} ms "
        f"({saved:.0%} saved), {report['apparate']['agreement']:.2%} of answers as the original's",
        fontsize=11,
    )
    figure.savefig(path, format="png")


def _latency(
    axes: Any, report: dict[str, Any], result: Comparison, oracle_ms: NDArray[np.float64] | None
) -> None:
    curves = {
        name: concatenate([r.answers[name] for r in result.rounds]).latency_ms
        for name in ("vanilla", "apparate")
    }
    if oracle_ms is not None:
        curves["oracle"] = oracle_ms
    for name, values in curves.items():
        style = "--" if name == "oracle" else "-"
        share = np.linspace(0, 1, len(values))
        axes.plot(np.sort(values), share, style, color=COLOURS[name], label=name, lw=2)
    axes.set_xlim(0, float(np.percentile(curves["vanilla"], 98)) * 1.1)
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"latency in ms, at {report['load_frac']:.0%} load")
    axes.set_ylabel("share of answers")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _exits(axes: Any, report: dict[str, Any]) -> None:
    rates = report["apparate"]["exit_rates"]
    thresholds = report["apparate"]["thresholds"]
    rows = range(len(rates))
    axes.barh(rows, list(rates.values()), color=COLOURS["apparate"])
    for row, (name, rate) in zip(rows, rates.items(), strict=True):
        note = f" {rate:.0%}" + (f", error < {thresholds[name]:.3f}" if name in thresholds else "")
        axes.text(rate, row, note, va="center", fontsize=8)
    axes.set_yticks(rows, list(rates))
    axes.invert_yaxis()
    axes.set_xlim(0, max(rates.values()) * 1.6 + 0.05)
    axes.set_xlabel("share of answers that leave there")
    axes.spines[["top", "right"]].set_visible(False)


def _agreement(axes: Any, answers: Answers, constraint: float) -> None:
    count = len(answers.right)
    window = min(512, max(1, count // 4))
    total = np.concatenate([[0], np.cumsum(answers.right)])
    moving = (total[window:] - total[:-window]) / window
    overall = total[1:] / np.arange(1, count + 1)
    axes.plot(
        np.arange(window, count + 1),
        moving,
        color=COLOURS["apparate"],
        lw=1,
        alpha=0.6,
        label=f"last {window}",
    )
    axes.plot(np.arange(1, count + 1), overall, color=COLOURS["apparate"], lw=2, label="so far")
    axes.axhline(constraint, color="#b91c1c", ls="--", lw=1, label=f"constraint {constraint:.0%}")
    low = min(constraint, float(moving.min(initial=1.0)), float(overall[window:].min(initial=1.0)))
    axes.set_ylim(low - 0.005, 1.001)
    axes.set_xlabel("answers")
    axes.set_ylabel("agreement with the original model")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
