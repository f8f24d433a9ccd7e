"""Assembles the commands. ``run`` runs one of them: one line per error, exit status 0, 1 or 2.

0 is done, 1 failed, 2 wrong usage; 130 is an interruption by Ctrl-C.
"""

import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from apparate_cli import bench, errors, interrupt
from apparate_cli.inject import inject
from apparate_cli.inspect import inspect
from apparate_cli.output import stderr
from apparate_cli.serve import serve
from apparate_cli.top import top
from apparate_cli.train_ramps import train
from apparate_jax.serve.cache import enable_compilation_cache

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="apparate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve any Flax or JAX classifier with early answers.",
)
app.command("inject")(inject)
app.command("train-ramps")(train)
app.command("serve")(serve)
app.command("top")(top)
app.add_typer(bench.app, name="bench")
app.command("inspect")(inspect)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("apparate-jax"))
        raise typer.Exit


@app.callback()
def main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Serve any Flax or JAX classifier with early answers."""
    del show_version
    enable_compilation_cache()


def run() -> None:
    """Run the command that the process was started with, and leave."""
    with interrupt.resent() as pressed:
        try:
            app()
        except SystemExit as left:
            if left.code == INTERRUPTED:
                _interrupted()
            raise
        except BaseException as error:
            message = errors.explain(error)
            if errors.debugging() or (message is None and not pressed()):
                raise
            if message is None:
                _interrupted()
            stderr().print(f"error: {message}", style="bold red", soft_wrap=True)
            sys.exit(1)


def _interrupted() -> NoReturn:
    stderr().print("interrupted; nothing half-written was left behind")
    sys.exit(INTERRUPTED)
