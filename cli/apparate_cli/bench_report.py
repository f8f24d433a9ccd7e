"""What the comparing commands share: arrivals as they are typed, tables, the picture."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from apparate_cli.output import new_file
from apparate_jax.bench.comparison import Comparison
from apparate_jax.bench.workload import ARRIVALS, Times, read_trace
from apparate_jax.errors import ConfigError


def arrival_times(arrivals: str) -> Times | None:
    """Times of a trace from what was typed, None for a kind of drawn arrivals.

    Raises:
        ConfigError: It is neither.
        DataError: The trace cannot be read.
    """
    if arrivals in ARRIVALS:
        return None
    if not Path(arrivals).is_file():
        raise ConfigError(
            f"arrivals are {arrivals!r}, expected {' or '.join(ARRIVALS)}, or a CSV file of "
            "arrival times (there is none of that name)"
        )
    return read_trace(Path(arrivals))


def draw(report: dict[str, Any], result: Comparison, oracle_ms: Any, path: Path) -> None:
    """Draw the picture of a comparison into a new file."""
    from apparate_jax.bench.plot import plot_comparison

    with new_file(path) as file:
        plot_comparison(report, result, oracle_ms, file)


def latency_table(report: dict[str, Any]) -> Table:
    """Latency, throughput and agreement of both systems."""
    title = (
        f"{report['model']} on {report['workload']}, {report['requests']} requests at "
        f"{report['load_frac']:.0%} load ({report['rate_rps']:.1f}/s)"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("original", "early answers", "change", "oracle"):
        table.add_column(name, justify="right")
    vanilla, early, oracle = report["vanilla"], report["apparate"], report["oracle"]
    for key in ("p25_ms", "p50_ms", "p95_ms", "p99_ms"):
        best = oracle.get(key)
        table.add_row(
            f"{key.removesuffix('_ms')} latency, ms",
            f"{vanilla[key]:.1f}",
            f"{early[key]:.1f}",
            f"{early[key] / vanilla[key] - 1:+.1%}",
            "" if best is None else f"{best:.1f}",
        )
    ratio = report["compared"]["throughput_ratio"]["median"] - 1
    table.add_row(
        "throughput, requests/s",
        f"{vanilla['throughput_rps']:.1f}",
        f"{early['throughput_rps']:.1f}",
        f"{ratio:+.1%}",
        "",
    )
    table.add_row("agreement", "100 %", f"{early['agreement']:.2%}", "", "100 %")
    if "noise_floor" in report["compared"]:
        table.caption = f"the original against itself: {noise_floor(report)}"
    return table


def noise_floor(report: dict[str, Any]) -> str:
    """By how much equal systems differed: medians of the rounds and their middle half."""
    parts = []
    for key, ratio in report["compared"]["noise_floor"].items():
        low, high = np.percentile(ratio["rounds"], [25, 75])
        parts.append(
            f"{key.removesuffix('_ratio')} x {ratio['median']:.2f} ({low:.2f} to {high:.2f})"
        )
    return ", ".join(parts)


def exits_table(report: dict[str, Any]) -> Table:
    """Where answers left, and below which error."""
    early = report["apparate"]
    table = Table(title="where answers left", title_justify="left")
    table.add_column("exit")
    for name in ("depth", "exit rate", "threshold"):
        table.add_column(name, justify="right")
    for name, rate in early["exit_rates"].items():
        threshold = early["thresholds"].get(name)
        depth = early["depths"].get(name, 1.0)
        shown = "" if threshold is None else f"{threshold:.4f}"
        table.add_row(name, f"{depth:.2f}", f"{rate:.1%}", shown)
    return table
