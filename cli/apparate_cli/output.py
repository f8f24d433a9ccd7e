"""What the commands print: results on standard output, progress and errors on standard error.

With ``--json -`` standard output holds the JSON and nothing else.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from apparate_jax.errors import ConfigError

Step = Callable[[int, int, str], None]
PLAIN_EVERY_S = 5.0
STDOUT = "-"


def stderr() -> Console:
    """Console for progress and errors."""
    return Console(stderr=True, highlight=False)


class Output:
    """Results of one command."""

    def __init__(self, json_path: str | None) -> None:
        """Decide where results go.

        Args:
            json_path: Where to write JSON, ``-`` for standard output, None for nowhere.
        """
        self._json_path = json_path
        self._console = Console(highlight=False)

    def show(self, *what: Any) -> None:
        """Print for people, unless standard output is for JSON."""
        if self._json_path != STDOUT:
            self._console.print(*what)

    def write(self, result: dict[str, Any]) -> None:
        """Write the JSON result, if it was asked for.

        Raises:
            ConfigError: If the file cannot be written.
        """
        if self._json_path is None:
            return
        text = json.dumps(result, indent=2)
        if self._json_path == STDOUT:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            return
        path = Path(self._json_path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error


class Phases:
    """Progress over the phases of a command: bars on a terminal, plain lines elsewhere."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._console = stderr()

    def __call__(self, phase: str) -> Step:
        """A callback ``(done, total, what)`` for one phase."""
        return self._bar(phase) if self._progress is not None else self._lines(phase)

    def _bar(self, phase: str) -> Step:
        progress = self._progress
        assert progress is not None  # decided by the caller
        task = progress.add_task(phase, total=None)

        def step(done: int, total: int, what: str) -> None:
            del what
            progress.update(task, completed=done, total=total)

        return step

    def _lines(self, phase: str) -> Step:
        begun = last = time.monotonic()

        def step(done: int, total: int, what: str) -> None:
            nonlocal last
            del what
            now = time.monotonic()
            if done >= total or now - last >= PLAIN_EVERY_S:
                last = now
                self._console.print(f"{phase}: {done}/{total} ({now - begun:.1f} s)")

        return step


@contextmanager
def phases() -> Iterator[Phases]:
    """Show progress on standard error while a command works."""
    console = stderr()
    if not console.is_terminal:
        yield Phases(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Phases(progress)
