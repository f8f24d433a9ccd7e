"""``apparate bench compare``: every system of the field on the same arrivals of a recording."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from apparate_cli import options
from apparate_cli.bench_report import arrival_times
from apparate_cli.output import Output, check_place, new_file, phases
from apparate_jax.bench.baselines import SYSTEMS, check_names, task_of
from apparate_jax.bench.compare import compare as compare_systems
from apparate_jax.bench.compare import names_for, prepare
from apparate_jax.bench.recording import Recording, load
from apparate_jax.bench.replayed import ReplayedConfig
from apparate_jax.bench.report import environment
from apparate_jax.bench.two_layer import Small, small_of
from apparate_jax.control.config import ControlConfig
from apparate_jax.ramps.placement import PlacementConfig

REPLAYED = ReplayedConfig()
ALL = "all"
COLUMNS = (
    ("agreement", "agrees"),
    ("p25_saved_frac", "p25"),
    ("p50_saved_frac", "p50"),
    ("p95_saved_frac", "p95"),
    ("throughput_ratio", "rate"),
    ("windows_below_constraint", "windows"),
)
"""Keys of a row, and what the table calls them."""
CAPTION = (
    "p25, p50, p95: latency saved; rate: throughput; windows: of 512 answers, below the constraint"
)

Trace = Annotated[
    Path, typer.Argument(metavar="TRACE", help="Recording, made by apparate bench record.")
]
Systems = Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(SYSTEMS)}; or {ALL}.")]
Heavy = Annotated[
    Path | None,
    typer.Option(help="Recording of the same rows with DeeBERT's ramps (--style pooler)."),
]
SmallTrace = Annotated[
    Path | None,
    typer.Option("--small", help="Recording of the same rows by a small model, for two-layer."),
]
Requests = Annotated[int, typer.Option(help="Requests; the recording's rows are used in a circle.")]


# Long by its options: Typer reads them from the signature.
def compare(
    trace: Trace,
    systems: Systems = ALL,
    load_frac: Annotated[
        float, typer.Option(help="Arrival rate, as a share of the original's throughput.")
    ] = REPLAYED.load_frac,
    arrivals: Annotated[
        str, typer.Option(help="poisson, fixed, or a CSV file of arrival times.")
    ] = REPLAYED.arrivals,
    requests: Requests = REPLAYED.requests,
    accuracy: options.Accuracy = options.CONTROL.accuracy,
    ramp_budget: options.RampBudget = options.PLACEMENT.ramp_budget,
    heavy: Heavy = None,
    small: SmallTrace = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG).")] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals.")] = REPLAYED.seed,
    json: options.Json = None,
) -> None:
    """Compare systems on the same arrivals of a recorded stream; its first tenth is to tune on.

    Example: apparate bench compare stream.npz --systems branchynet,paper,apparate,oracle
    """
    output = Output(json)
    if plot is not None:
        check_place(plot)
    if systems != ALL:
        check_names(systems.split(","))
    times = arrival_times(arrivals)
    config = ReplayedConfig(
        load_frac, arrivals if times is None else REPLAYED.arrivals, requests, seed=seed
    )
    recording = load(trace)
    task = task_of(
        recording,
        ControlConfig(accuracy=accuracy),
        PlacementConfig(ramp_budget=ramp_budget),
        heavy=None if heavy is None else load(heavy),
        small=small_model(small, recording),
        seed=seed,
    )
    match = prepare(task, config, trace=times)
    names = names_for(task) if systems == ALL else tuple(systems.split(","))
    rows: list[dict[str, Any]] = []
    with phases() as phase:
        step = phase("replaying")
        for done, name in enumerate(names, 1):
            rows += compare_systems([name], match)
            step(done, len(names), name)
    report = {
        "model": recording.model,
        "workload": recording.workload,
        "accuracy_constraint": accuracy,
        "load_frac": load_frac,
        "requests": len(match.times),
        "recorded_on": {"device": recording.profile.device, "jax": recording.jax_version},
        "systems": rows,
        "environment": environment(),
    }
    title = f"{recording.model} on {recording.workload}, {len(match.times)} requests"
    title += f" at {load_frac:.0%} load"
    if plot is not None:
        _draw(rows, title, accuracy, plot)
    output.show(systems_table(rows, title))
    output.write(report)


def small_model(path: Path | None, large: Recording) -> Small | None:
    """The small model of the two-layer system, if one was named."""
    return None if path is None else small_of(load(path), large)


def systems_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """A row per system."""
    table = Table(title=title, title_justify="left", caption=CAPTION, caption_justify="left")
    table.add_column("system", no_wrap=True)
    for _, label in COLUMNS:
        table.add_column(label, justify="right")
    for row in rows:
        table.add_row(row["system"], *(shown(row.get(key), key) for key, _ in COLUMNS))
    return table


def shown(value: Any, key: str) -> str:
    """A figure as people read it: shares in per cent, ratios as factors."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if key.endswith("_ratio"):
        return f"x {value:.3f}"
    if key.endswith("_ms") or key.endswith("_rps"):
        return f"{value:.2f}"
    return f"{value:.2%}" if "agree" in key else f"{value:.1%}"


def _draw(rows: Sequence[Mapping[str, Any]], title: str, accuracy: float, path: Path) -> None:
    from apparate_jax.bench.study_plot import plot_points

    with new_file(path) as file:
        plot_points(rows, title, accuracy, file)
