"""``apparate bench paper``: the paper's evaluation, and a report beside the paper's figures."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import jax
import typer
from rich.table import Table

from apparate_cli.output import Output, Phases, phases
from apparate_cli.trained import trained
from apparate_jax.bench.live import LiveConfig, OnPhase, run_live
from apparate_jax.bench.paper.config import QUICK, PaperConfig
from apparate_jax.bench.paper.measure import Progress
from apparate_jax.bench.paper.parts import Given, Live
from apparate_jax.bench.paper.report import HTML, write_report
from apparate_jax.bench.paper.run import Step, run
from apparate_jax.bench.paper.suite import Suite, Workload, read_suite, suite_of
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.bench.workload import read_trace
from apparate_jax.control.config import ControlConfig
from apparate_jax.data import load_data
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve import prepare
from apparate_jax.serve.service import ServiceConfig

PAPER = PaperConfig()
SUITE = ".toml"


# Long by its options: Typer reads them from the signature.
def paper(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SUITE|TRACE...",
            help="A suite file (.toml), or recordings made by apparate bench record.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the report; parts in it are kept.")
    ] = Path("runs/paper"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few minutes: fewer requests and runs, nothing live.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Make every part again, also those that are kept.")
    ] = False,
    requests: Annotated[
        int | None,
        typer.Option(help=f"Of each run. [{PAPER.requests}; {QUICK.requests} with --quick]"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help=f"Runs of each setting. [{PAPER.seeds}; {QUICK.seeds} with --quick]"),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(help="Also on the wall clock, where the suite has a checkpoint and data."),
    ] = True,
    live_rounds: Annotated[int, typer.Option(help="Turns of each system, live.")] = (
        PAPER.live_rounds
    ),
    live_round_seconds: Annotated[float, typer.Option(help="Length of one, live.")] = (
        PAPER.live_round_s
    ),
    sensitivity: Annotated[
        str,
        typer.Option(help="Of which workloads: first (of each kind, as the paper does), all."),
    ] = PAPER.sensitivity,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH", help="Also write the report as JSON; - for stdout."),
    ] = None,
) -> None:
    """Run the paper's evaluation on recordings; a report with every figure beside the paper's.

    Example: apparate bench paper imdb.npz cifar.npz --out runs/paper --quick
    """
    output = Output(json)
    config = replace(
        QUICK if quick else PAPER,
        live_rounds=live_rounds,
        live_round_s=live_round_seconds,
        sensitivity=sensitivity,
    )
    if requests is not None:
        config = replace(config, requests=requests)
    if seeds is not None:
        config = replace(config, seeds=seeds)
    suite = suite_from(sources)
    suite.check_files()
    with phases(keep=False) as phase:
        given = Given(suite, config, live_runner(phase) if live else None, parameter_bytes)
        done = run(given, out, force=force, begin=phase, on_done=_announce(phase))
        report = write_report(given, done, out)
    if done.kept:
        output.show(f"{len(done.kept)} parts kept from before, {len(done.made)} made")
    output.show(summary_table(report))
    output.show(f"report: {out / HTML}")
    output.write(report)
    if done.failed:
        raise ConfigError(
            f"{', '.join(done.failed)} failed, the report says why: correct what is wrong and run "
            "the same command again, the other parts are kept"
        )


def suite_from(sources: list[Path]) -> Suite:
    """A suite from what was typed.

    Raises:
        ConfigError: A suite file among other files, or one that is not sound.
    """
    files = [path for path in sources if path.suffix == SUITE]
    if not files:
        return suite_of(sources)
    if len(sources) > 1:
        raise ConfigError(
            f"{len(sources)} files with {files[0]} among them, expected one suite file, or "
            "recordings only"
        )
    return read_suite(files[0])


def parameter_bytes(checkpoint: Path) -> int:
    """Memory of the parameters of a checkpoint's model."""
    leaves = jax.tree.leaves(trained(checkpoint).model.params)
    return sum(int(leaf.nbytes) for leaf in leaves)


def live_runner(phase: Phases) -> Live:
    """Runs workloads on real engines."""

    def live(workload: Workload, config: LiveConfig, progress: Progress) -> dict[str, Any]:
        assert workload.checkpoint is not None and workload.data is not None  # or it is skipped
        loaded = trained(workload.checkpoint)
        settings = ServiceConfig(control=ControlConfig(), placement=PlacementConfig())
        examples = load_data(workload.data, loaded.model)
        times = None if workload.arrivals is None else read_trace(workload.arrivals)
        service = prepare(loaded, settings, phase)
        try:
            on_phase = _whole(config, progress)
            result = run_live(service, examples, config, trace=times, on_phase=on_phase)
        finally:
            service.programs.close()
        subject = Subject.of(service, examples.name)
        return build_report(subject, result, config.stated_load, oracle_ms=None)

    return live


def _whole(config: LiveConfig, progress: Progress) -> OnPhase:
    """One bar for a live run: rounds of throughput, then turns at the load."""
    turns = 3 if config.noise_floor else 2
    total = config.rounds * (1 + turns)
    done = 0

    def on_phase(what: str, at: int, of: int) -> None:
        nonlocal done
        if what == "throughput" or (what != "settling" and at >= of):
            done += 1
            progress(done, total, what)

    return on_phase


def _announce(phase: Phases) -> Any:
    def on_done(step: Step, failed: str | None, left_s: float) -> None:
        left = f"about {left_s:.0f} s left" if left_s >= 1 else "nothing left to run"
        phase.note(f"{step.title} {failed or 'done'}, {left}")

    return on_done


def summary_table(report: dict[str, Any]) -> Table:
    """A row per workload: each figure and its verdict beside the paper."""
    table = Table(title="beside the paper", title_justify="left")
    table.add_column("workload", no_wrap=True)
    for figure in report["summary"][0]["figures"]:
        table.add_column(figure["key"], justify="right")
    for row in report["summary"]:
        cells = (f"{f['shown']}\n{f['verdict']}" for f in row["figures"])
        table.add_row(f"{row['workload']}\n{row['kind']}", *cells)
    return table
