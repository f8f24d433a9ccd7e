"""``apparate bench``: measure early answers against the original model."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from apparate_cli import options
from apparate_cli.output import Output, Phases, check_place, new_file, phases
from apparate_jax.bench.live import LiveConfig, LiveResult, concatenate, run_live
from apparate_jax.bench.oracle import earliest_right, oracle_latency_ms
from apparate_jax.bench.report import build_report
from apparate_jax.bench.workload import ARRIVALS, Times, read_trace
from apparate_jax.checkpoint import Checkpoint, load_checkpoint
from apparate_jax.control.thresholds import METHODS
from apparate_jax.data import load_data
from apparate_jax.data.dataset import Circle, Dataset
from apparate_jax.errors import CheckpointError, ConfigError
from apparate_jax.graph import trace as trace_model
from apparate_jax.serve import Service, prepare
from apparate_jax.serve.profile import keep_profile

LIVE = LiveConfig()
app = typer.Typer(no_args_is_help=True, help="Measure early answers against the original model.")


@app.callback()
def bench() -> None:
    """Measure early answers against the original model."""


# Long by its options: Typer reads them from the signature.
@app.command()
def live(
    checkpoint: options.CheckpointPath,
    data: options.Data,
    load_frac: Annotated[
        float, typer.Option(help="Arrival rate, as a share of the original's measured throughput.")
    ] = LIVE.load_frac,
    arrivals: Annotated[
        str, typer.Option(help="poisson, fixed, or a CSV file of arrival times.")
    ] = LIVE.arrivals,
    rounds: Annotated[int, typer.Option(help="Turns of each system.")] = LIVE.rounds,
    round_seconds: Annotated[
        float, typer.Option(help="Length of a round of arrivals.")
    ] = LIVE.round_s,
    saturation_seconds: Annotated[
        float, typer.Option(help="Length of a measurement of throughput.")
    ] = LIVE.saturation_s,
    settle: Annotated[
        int, typer.Option(help="Answers before the rounds, so that thresholds are tuned.")
    ] = LIVE.settle,
    accuracy: options.Accuracy = options.CONTROL.accuracy,
    ramp_budget: options.RampBudget = options.PLACEMENT.ramp_budget,
    batch_sizes: options.BatchSizes = options.BATCH_SIZES,
    method: Annotated[
        str, typer.Option(help=f"Threshold search: {' or '.join(METHODS)}.")
    ] = options.CONTROL.method,
    oracle: Annotated[
        bool, typer.Option(help="Also state what leaving at the earliest right site would save.")
    ] = True,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG).")] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals.")] = LIVE.seed,
    text_column: options.TextColumn = "text",
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    fps: options.Fps = None,
    limit: options.Limit = None,
    json: options.Json = None,
) -> None:
    """Serve the original model and early answers in turn, on the same arrivals, and compare.

    Example: apparate bench live runs/demo/checkpoint --data stream.csv --json report.json
    """
    output = Output(json)
    if plot is not None:
        check_place(plot)
    drawn = arrivals in ARRIVALS
    times = None if drawn else _trace(arrivals)
    config = LiveConfig(
        load_frac=load_frac,
        arrivals=arrivals if drawn else LIVE.arrivals,
        rounds=rounds,
        round_s=round_seconds,
        saturation_s=saturation_seconds,
        settle=settle,
        seed=seed,
    )
    service_config = options.service_config(accuracy, ramp_budget, batch_sizes, method)
    loaded = trained(checkpoint)
    examples = load_data(
        data,
        loaded.model,
        text_column=text_column,
        image_column=image_column,
        label_column=label_column,
        fps=fps,
        limit=limit,
    )
    with phases() as phase:
        service = prepare(loaded, service_config, phase)
        keep_profile(service.profile, checkpoint)
        result = run_live(service, examples, config, trace=times, on_phase=_each_phase(phase))
        oracle_ms = _oracle(loaded, service, result, examples, phase) if oracle else None
        service.programs.close()
    report = build_report(service, result, config, examples.name, oracle_ms)
    if plot is not None:
        _draw(report, result, oracle_ms, plot)
    output.show(_table(report))
    output.show(_exits(report))
    output.write(report)


def trained(path: Path) -> Checkpoint:
    """A checkpoint that has ramps.

    Raises:
        CheckpointError: If it has none yet.
    """
    loaded = load_checkpoint(path)
    if not loaded.ramps:
        raise CheckpointError(
            f"the checkpoint {path} has no ramps yet: run apparate train-ramps {path} --data ..."
        )
    return loaded


def _trace(arrivals: str) -> Times:
    if not Path(arrivals).is_file():
        raise ConfigError(
            f"arrivals are {arrivals!r}, expected {' or '.join(ARRIVALS)}, or a CSV file of "
            "arrival times (there is none of that name)"
        )
    return read_trace(Path(arrivals))


def _each_phase(phase: Phases) -> Any:
    steps: dict[str, Any] = {}

    def on_phase(what: str, done: int, total: int) -> None:
        steps.setdefault(what, phase(what))(done, total, what)

    return on_phase


def _oracle(
    loaded: Checkpoint, service: Service, result: LiveResult, data: Dataset, phase: Phases
) -> np.ndarray[Any, np.dtype[np.float64]]:
    model = loaded.model
    program = trace_model(model.apply, model.params, *model.example_inputs(1))
    counts = [len(r.answers["vanilla"].latency_ms) for r in result.rounds]
    rows = np.concatenate(
        [r.first_input + np.arange(n) for r, n in zip(result.rounds, counts, strict=True)]
    )
    first = result.rounds[0].first_input
    seen = Circle(data, first, min(len(rows), len(data)))
    by_row = earliest_right(program, model, loaded.ramps, seen, phase("oracle"))
    earliest = by_row[(rows - first) % len(data)]
    answers = concatenate([r.answers["vanilla"] for r in result.rounds])
    return oracle_latency_ms(answers, earliest, service.profile)


def _draw(report: dict[str, Any], result: LiveResult, oracle_ms: Any, path: Path) -> None:
    from apparate_jax.bench.plot import plot_live

    with new_file(path) as file:
        plot_live(report, result, oracle_ms, file)


def _table(report: dict[str, Any]) -> Table:
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
    return table


def _exits(report: dict[str, Any]) -> Table:
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
