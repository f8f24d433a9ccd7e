"""Pictures of comparisons and studies: saving against disagreement, and lines over settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparate_jax.bench.workload import load_of

Row = Mapping[str, Any]
OURS = "#0f766e"
OTHERS = ("#6b7280", "#d97706", "#1d4ed8", "#b91c1c", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
MARKERS = "osD^vP*X"
LIMIT = "#b91c1c"
ABSOLUTE = ("_ratio", "_ms", "_rps")
"""Ends of names of figures that are no shares; shares are shown in per cent."""


def styles(systems: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each system; ours always the same."""
    out, count = {}, 0
    for name in systems:
        if name == "apparate":
            out[name] = (OURS, "o")
            continue
        shift = count // len(OTHERS)
        out[name] = (OTHERS[count % len(OTHERS)], MARKERS[1 + (count + shift) % (len(MARKERS) - 1)])
        count += 1
    return out


def plot_points(rows: Sequence[Row], title: str, accuracy: float, path: Path) -> None:
    """One point per row: median latency saved against disagreement, as PNG.

    Args:
        rows: With ``system``, ``disagreement`` and ``p50_saved_frac``.
        title: Of the picture.
        accuracy: The constraint.
        path: Where to write it.
    """
    figure, (axes,) = _figure(8.6, 1)
    marks = styles([row["system"] for row in rows])
    for row in rows:
        name = row["system"]
        colour, marker = marks[name]
        size = 130 if name == "apparate" else 60
        point = (100 * row["disagreement"], 100 * row["p50_saved_frac"])
        axes.scatter(*point, s=size, color=colour, marker=marker, label=name, zorder=3, alpha=0.85)
    limit = 100 * (1 - accuracy)
    axes.axvline(limit, color=LIMIT, ls="--", lw=1, label=f"constraint, {limit:g} %")
    axes.set_xscale("symlog", linthresh=max(limit, 0.1), linscale=1.5)
    ticks = [0.0, limit / 2, limit, 2 * limit, 5 * limit, 10 * limit, 20 * limit]
    widest = max(2 * limit, *(100 * row["disagreement"] for row in rows))
    shown = [t for t in ticks if t <= 1.3 * widest]
    axes.set_xticks(shown, [f"{t:g}" for t in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(-0.08 * limit, 1.3 * widest)
    axes.set_xlabel("answers that differ from the original's, %")
    axes.set_ylabel("median latency saved, %")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    axes.set_title(title, fontsize=10)
    figure.savefig(path, format="png")


def plot_study(report: Row, keys: Sequence[tuple[str, str]], picture: str, path: Path) -> None:
    """Draw a study's report as PNG.

    Args:
        report: From :func:`apparate_jax.bench.studies.run_study`.
        keys: The figures that are shown, and their axes.
        picture: ``"points"``, ``"settings"`` or ``"bars"``.
        path: Where to write it.
    """
    title = (
        f"{report['what']}: {report['model']} on {report['workload']}\n"
        f"{report['stream']} stream, {report['seeds']} runs"
    )
    if report["study"] != "tuner":
        title += f" of {report['requests']} requests"
    if report["study"] not in ("tuner", "load"):
        title += f" {load_of(report['load_frac'], report.get('rate_rps'))}"
    if picture == "points":
        plot_points(report["rows"], title, report["accuracy_constraint"], path)
    elif picture == "bars":
        plot_bars(report["rows"], keys, title, path)
    else:
        plot_settings(report["rows"], keys, title, path)


def plot_settings(
    rows: Sequence[Row], keys: Sequence[tuple[str, str]], title: str, path: Path
) -> None:
    """A panel per figure: a line per system over the settings, as PNG.

    Args:
        rows: With ``setting``, ``system`` and the figures; means over seeds.
        keys: Names of figures, and what the axis says of each. Shares are shown in per cent.
        title: Of the picture.
        path: Where to write it.
    """
    settings = list(dict.fromkeys(str(row["setting"]) for row in rows))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    figure, panels = _figure(4.6 * len(keys), len(keys))
    marks = styles(systems)
    for axes, (key, label) in zip(panels, keys, strict=True):
        scale = 1.0 if key.endswith(ABSOLUTE) else 100.0
        for name in systems:
            given = {
                str(row["setting"]): scale * row[key]
                for row in rows
                if row["system"] == name and row.get(key) is not None
            }
            values = [given.get(setting, np.nan) for setting in settings]
            colour, marker = marks[name]
            axes.plot(range(len(settings)), values, marker=marker, color=colour, label=name, lw=1.8)
        slanted = {"rotation": 30, "ha": "right"} if max(map(len, settings)) > 8 else {}
        axes.set_xticks(range(len(settings)), settings, fontsize=8, **slanted)
        axes.margins(x=0.08)
        axes.set_ylabel(label)
        axes.grid(alpha=0.25)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, loc="outside right center", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, format="png")


def plot_bars(rows: Sequence[Row], keys: Sequence[tuple[str, str]], title: str, path: Path) -> None:
    """A panel per figure with a bar per system, of rows of one setting, as PNG.

    Args:
        rows: With ``system`` and the figures.
        keys: As for :func:`plot_settings`.
        title: Of the picture.
        path: Where to write it.
    """
    figure, panels = _figure(4.4 * len(keys) + 1, len(keys), height=0.34 * len(rows) + 1.6)
    names = [row["system"] for row in rows]
    for panel, (axes, (key, label)) in enumerate(zip(panels, keys, strict=True)):
        scale = 1.0 if key.endswith(ABSOLUTE) else 100.0
        values = [scale * (row[key] or 0.0) for row in rows]
        colours = [OURS if name == "apparate" else OTHERS[0] for name in names]
        axes.barh(range(len(rows)), values, color=colours)
        axes.set_yticks(range(len(rows)), names if panel == 0 else [""] * len(rows))
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.grid(alpha=0.25, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, format="png")


def _figure(width: float, panels: int, height: float = 4.6) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12)
    figure = Figure(figsize=(width, height), dpi=120, layout=layout)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, squeeze=False)[0]
