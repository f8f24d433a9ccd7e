"""``apparate bench study``: the paper's experiments on recorded streams."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from apparate_cli import options
from apparate_cli.bench_compare import Heavy, shown
from apparate_cli.bench_report import arrival_times
from apparate_cli.output import Output, check_place, new_file, phases
from apparate_jax.bench.baselines import SYSTEMS
from apparate_jax.bench.recording import load
from apparate_jax.bench.streams import STREAMS
from apparate_jax.bench.studies import STUDIES, run_study
from apparate_jax.bench.study import Inputs, Pattern, StudyConfig
from apparate_jax.errors import ConfigError

STUDY = StudyConfig()
USUAL = (
    ("p25_saved_frac", "p25"),
    ("p50_saved_frac", "p50"),
    ("p95_saved_frac", "p95"),
    ("p99_saved_frac", "p99"),
    ("throughput_ratio", "rate"),
    ("disagreement", "differs"),
    ("worst_disagreement", "worst"),
    ("windows_below_constraint", "windows"),
    ("kept_frac", "kept"),
    ("of_exact_frac", "of exact"),
    ("next_disagreement", "next window"),
    ("search_ms", "ms"),
)
"""Keys of a row, and what the table calls them; those that a study lacks are left out."""
CAPTION = "p25 to p99: latency saved; windows: of 512 answers, below the constraint; means of runs"


# Long by its options: Typer reads them from the signature.
def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(STUDIES)}.")],
    traces: Annotated[
        list[Path],
        typer.Argument(metavar="TRACE...", help="Recordings, made by apparate bench record."),
    ],
    stream: Annotated[
        str, typer.Option(help=f"How rows follow one another: {', '.join(STREAMS)}.")
    ] = STUDY.stream,
    load_frac: Annotated[
        float, typer.Option(help="Arrival rate, as a share of the original's throughput.")
    ] = STUDY.load_frac,
    arrivals: Annotated[
        list[str] | None,
        typer.Option(
            help="poisson, fixed, or a CSV file of arrival times; several for the study arrivals."
        ),
    ] = None,
    requests: Annotated[int, typer.Option(help="Requests of each run.")] = STUDY.requests,
    seeds: Annotated[int, typer.Option(help="Runs of each cell.")] = STUDY.seeds,
    accuracy: options.Accuracy = STUDY.accuracy,
    ramp_budget: options.RampBudget = STUDY.ramp_budget,
    systems: Annotated[
        str | None, typer.Option(help=f"Instead of the study's own: {', '.join(SYSTEMS)}.")
    ] = None,
    heavy: Heavy = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG).")] = None,
    json: options.Json = None,
) -> None:
    """Run one of the paper's studies on replay: settings, systems and seeds.

    Example: apparate bench study accuracy stream.npz --plot accuracy.png
    """
    output = Output(json)
    if plot is not None:
        check_place(plot)
    if name not in STUDIES:
        raise ConfigError(f"the study is {name!r}, expected one of {', '.join(STUDIES)}")
    patterns = patterns_of(name, arrivals or [STUDY.arrivals])
    (kind, times), *_ = patterns
    config = StudyConfig(
        stream=stream,
        load_frac=load_frac,
        arrivals=kind if times is None else STUDY.arrivals,
        requests=requests,
        seeds=seeds,
        accuracy=accuracy,
        ramp_budget=ramp_budget,
        systems=None if systems is None else tuple(systems.split(",")),
    )
    recordings = tuple(load(path) for path in traces)
    inputs = Inputs(recordings, None if heavy is None else load(heavy), times, patterns)
    with phases() as phase:
        report = run_study(name, inputs, config, phase(name))
    if plot is not None:
        draw_study(report, plot)
    output.show(study_table(report))
    output.write(report)


def patterns_of(name: str, arrivals: Sequence[str]) -> tuple[Pattern, ...]:
    """When requests arrive, from what was typed; a trace is called by its file's name.

    Raises:
        ConfigError: It is no kind and no file, or several are given to a study that takes one.
        DataError: A trace cannot be read.
    """
    if len(arrivals) > 1 and name != "arrivals":
        raise ConfigError(
            f"arrivals are {', '.join(arrivals)}, expected one of them: only the study arrivals "
            "holds several against one another"
        )
    times = [arrival_times(one) for one in arrivals]
    return tuple(
        Pattern(one if found is None else Path(one).stem, found)
        for one, found in zip(arrivals, times, strict=True)
    )


def title_of(report: Mapping[str, Any]) -> str:
    """One line that says what a study was made on."""
    return (
        f"{report['what']}: {report['model']} on {report['workload']}, {report['stream']}, "
        f"{report['requests']} requests x {report['seeds']}"
    )


def study_table(report: Mapping[str, Any]) -> Table:
    """A row per setting and system."""
    rows: Sequence[Mapping[str, Any]] = report["rows"]
    there = [(key, label) for key, label in USUAL if any(row.get(key) is not None for row in rows)]
    table = Table(
        title=title_of(report), title_justify="left", caption=CAPTION, caption_justify="left"
    )
    table.add_column("setting")
    table.add_column("system", no_wrap=True)
    for _, label in there:
        table.add_column(label, justify="right")
    for row in rows:
        values = (shown(row.get(key), key) for key, _ in there)
        table.add_row(row["setting"], row["system"], *values)
    return table


def draw_study(report: Mapping[str, Any], path: Path) -> None:
    """Draw a study's picture into a new file."""
    from apparate_jax.bench.study_plot import plot_study

    one = STUDIES[report["study"]]
    with new_file(path) as file:
        plot_study(report, one.keys, one.picture, file)
