"""What the evaluation is made on: workloads, from a suite file (TOML) or from bare recordings.

A suite file has a table for each workload; relative paths are relative to the file::

    [[workload]]
    name = "imdb"
    kind = "text"                    # or "images": which of the paper's figures it stands beside
    trace = "traces/imdb.npz"        # made by apparate bench record
    heavy = "traces/imdb-pooler.npz" # optional: the same rows with DeeBERT's ramps
    stream = "recorded"              # optional: independent (drawn at random) unless it is said
    pace = "fixed"                   # optional: poisson unless it is said
    rate = 20                        # optional: requests per second, instead of the share of load
    arrivals = "azure.csv"           # optional: arrival times, one a row
    checkpoint = "demo/checkpoint"   # optional: the size of the model, and with data a live part
    data = "demo/stream.csv"
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from apparate_jax.bench.recording import Recording
from apparate_jax.bench.streams import STREAMS
from apparate_jax.bench.workload import ARRIVALS
from apparate_jax.errors import ConfigError

KINDS = ("text", "images")
PATHS = ("trace", "heavy", "arrivals", "checkpoint", "data")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TABLE = "workload"
_WORDS = {
    "text": ("bert", "gpt", "minilm", "t5", "electra", "mpnet", ".csv", ".jsonl"),
    "images": ("resnet", "vgg", "efficientnet", "mobilenet", "vit", "convnext", ".mp4", "cifar"),
}
"""What names of models and data tell of their kind."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload of the evaluation.

    Attributes:
        name: Letters, digits, ``.``, ``_``, ``-``: its parts' files are called by it.
        kind: One of :data:`KINDS`; None where nobody said: then figures of the paper that are of
            one kind stand beside nothing.
        trace: Its recording.
        stream: How its rows make a stream, one of :data:`apparate_jax.bench.streams.STREAMS`:
            ``"recorded"`` where their order matters, as frames of a video.
        pace: When requests arrive, one of :data:`apparate_jax.bench.workload.ARRIVALS`:
            ``"fixed"`` as from a camera.
        rate: Requests per second, as of a camera; None for the evaluation's load.
        heavy: The same rows with DeeBERT's ramps, or None.
        arrivals: Arrival times (CSV), or None: the study of arrivals has them, and the live part
            takes them instead of its pace.
        checkpoint: Directory of the model with its ramps, or None.
        data: Inputs for a live part, or None; with a checkpoint only.
    """

    name: str
    kind: str | None
    trace: Path
    stream: str = "independent"
    pace: str = "poisson"
    heavy: Path | None = None
    arrivals: Path | None = None
    checkpoint: Path | None = None
    data: Path | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"a workload is called {self.name!r}, expected letters, digits, '.', '_' and '-': "
                "files are named after it"
            )
        if self.kind not in (*KINDS, None):
            raise ConfigError(f"{self.name}: kind is {self.kind!r}, expected one of {list(KINDS)}")
        for key, value, known in (("stream", self.stream, STREAMS), ("pace", self.pace, ARRIVALS)):
            if value not in known:
                raise ConfigError(f"{self.name}: {key} is {value!r}, expected one of {list(known)}")
        if self.rate is not None and not self.rate > 0:
            raise ConfigError(f"{self.name}: rate is {self.rate}, expected a number above 0")
        if self.data is not None and self.checkpoint is None:
            raise ConfigError(
                f"{self.name} has data but no checkpoint: a live part needs both, name the "
                "checkpoint too or leave the data out"
            )


@dataclass(frozen=True, slots=True)
class Suite:
    """All workloads, in the report's order."""

    workloads: tuple[Workload, ...]

    def __post_init__(self) -> None:
        names = [one.name for one in self.workloads]
        if not names:
            raise ConfigError(
                f"no workloads: expected a table [[{TABLE}]] for each, or some recordings"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"workloads {twice} are there twice, expected a name of its own each")

    def check_files(self) -> None:
        """See that everything that is named is there.

        Raises:
            ConfigError: Something is not.
        """
        for one in self.workloads:
            for key, path in paths_of(one).items():
                if not path.exists():
                    raise ConfigError(
                        f"{one.name}: there is no {path}, its {key}: make it, or correct the path"
                    )


def paths_of(workload: Workload) -> dict[str, Path]:
    """The files and directories of a workload, by their key in a suite file."""
    named = {key: getattr(workload, key) for key in PATHS}
    return {key: path for key, path in named.items() if path is not None}


def read_suite(file: Path) -> Suite:
    """A suite file; whether its files are there is not looked at.

    Raises:
        ConfigError: It cannot be read, or a key is unknown, missing or of another type.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the suite {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the suite {file} is no TOML: {error}") from None
    unknown = sorted(set(content) - {TABLE})
    tables = content.get(TABLE, [])
    if unknown or not isinstance(tables, list):
        raise ConfigError(
            f"the suite {file} has {', '.join(unknown) or f'one table {TABLE}'}, expected only "
            f"tables [[{TABLE}]]"
        )
    return Suite(tuple(_workload(table, file, at) for at, table in enumerate(tables, 1)))


def _workload(table: Any, file: Path, at: int) -> Workload:
    """One table of a suite file."""
    known = {field.name for field in fields(Workload)}
    what = f"workload {at} of {file}"
    if not isinstance(table, dict):
        raise ConfigError(f"{what} is {table!r}, expected a table [[{TABLE}]]")
    unknown, missing = sorted(set(table) - known), {"name", "kind", "trace"} - set(table)
    if unknown or missing:
        raise ConfigError(
            f"{what}: {f'unknown keys {unknown}' if unknown else f'{sorted(missing)} missing'}, "
            f"expected name, kind and trace, and if wanted {sorted(known)[:3]} or heavy"
        )
    wrong = {key: value for key, value in table.items() if type(value) not in _types(key)}
    if wrong:
        raise ConfigError(
            f"{what}: {wrong}, expected text between quotes for each, and a number for rate"
        )
    given = {key: file.parent / value if key in PATHS else value for key, value in table.items()}
    return Workload(**given)


def _types(key: str) -> tuple[type, ...]:
    """What the value of a key may be."""
    return (int, float) if key == "rate" else (str,)


def suite_of(traces: Sequence[Path]) -> Suite:
    """Bare recordings as workloads, called by their files' names; kinds are not known yet."""
    return Suite(tuple(Workload(path.stem, None, path) for path in traces))


def kind_of(recording: Recording) -> str | None:
    """Text or images by the names of model and data; None where these do not tell."""
    said = f"{recording.model} {recording.workload}".lower()
    found = [kind for kind, words in _WORDS.items() if any(word in said for word in words)]
    return found[0] if len(found) == 1 else None
