"""What the commands print: results on standard output, progress and errors on standard error.

With ``--json -`` standard output holds the JSON and nothing else. Files are whole or not there.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
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
    return _console(stderr=True)


def _console(*, stderr: bool = False) -> Console:
    # Names and paths are shown as they are: [x] is no markup and :b: no picture.
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def check_place(path: Path) -> None:
    """See that a file can be written, before the work that it is to hold.

    Raises:
        ConfigError: It is a directory, or there is no place for it.
    """
    place = next(str(p) for p in path.absolute().parents if os.path.lexists(p))
    if path.is_dir():
        problem = "it is a directory"
    elif not os.path.isdir(place):
        problem = f"{place} is no directory"
    elif not os.access(path if os.path.exists(path) else place, os.W_OK):
        problem = "that needs a permission which this user lacks"
    else:
        return
    raise ConfigError(f"cannot write {path}, {problem}: name another file")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to fill; at the end it takes the place of ``path``, or nothing changes.

    Raises:
        ConfigError: If it cannot be written.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():  # a pipe or a terminal cannot be replaced
        yield target
        return
    made = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield made
        made.replace(target)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            made.unlink()


class Output:
    """Results of one command."""

    def __init__(self, json_path: str | None) -> None:
        """Decide where results go.

        Args:
            json_path: Where to write JSON, ``-`` for standard output, None for nowhere.

        Raises:
            ConfigError: If that file cannot be written.
        """
        self._json_path = json_path
        self._console = _console()
        if json_path not in (None, STDOUT):
            check_place(Path(str(json_path)))

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
        with new_file(Path(self._json_path)) as file:
            file.write_text(text + "\n", encoding="utf-8")


class Phases:
    """Progress over the phases of a command: bars on a terminal, plain lines elsewhere."""

    def __init__(self, progress: Progress | None, *, keep: bool = True) -> None:
        self._progress = progress
        self._keep = keep
        self._console = stderr()

    def __call__(self, phase: str) -> Step:
        """A callback ``(done, total, what)`` for one phase."""
        return self._bar(phase) if self._progress is not None else self._lines(phase)

    def note(self, line: str) -> None:
        """Print one line, above the bars if there are some."""
        console = self._console if self._progress is None else self._progress.console
        console.print(line, soft_wrap=True)

    def _bar(self, phase: str) -> Step:
        progress = self._progress
        assert progress is not None  # decided by the caller
        task = progress.add_task(phase, total=None)

        def step(done: int, total: int, what: str) -> None:
            del what
            progress.update(task, completed=done, total=total)
            if done >= total and not self._keep:
                progress.update(task, visible=False)

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


@contextlib.contextmanager
def phases(*, keep: bool = True) -> Iterator[Phases]:
    """Show progress on standard error while a command works.

    Args:
        keep: Whether bars stay when their phase is done; a command of many phases hides them.
    """
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
        yield Phases(progress, keep=keep)
