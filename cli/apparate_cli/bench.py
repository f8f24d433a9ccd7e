"""``apparate bench``: measure early answers against the original model."""

import typer

from apparate_cli.bench_compare import compare
from apparate_cli.bench_live import live
from apparate_cli.bench_paper import paper
from apparate_cli.bench_record import record
from apparate_cli.bench_replay import replay
from apparate_cli.bench_study import study

app = typer.Typer(no_args_is_help=True, help="Measure early answers against the original model.")
app.command("live")(live)
app.command("record")(record)
app.command("replay")(replay)
app.command("compare")(compare)
app.command("study")(study)
app.command("paper")(paper)


@app.callback()
def bench() -> None:
    """Measure early answers against the original model."""
