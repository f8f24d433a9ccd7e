"""The parts of the evaluation: what each runs, on which files, and when there is nothing to run.

A part is one measurement of one workload. Its result is kept under a fingerprint of the contents
of its inputs and of the settings that it uses, so that an evaluation goes on where it was ended and
does again only what changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from apparate_jax.bench import recording as recordings
from apparate_jax.bench.baselines import SYSTEMS
from apparate_jax.bench.live import LiveConfig
from apparate_jax.bench.paper import measure
from apparate_jax.bench.paper.config import PaperConfig
from apparate_jax.bench.paper.measure import Progress
from apparate_jax.bench.paper.store import digest_of
from apparate_jax.bench.paper.suite import Suite, Workload, kind_of
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.studies import run_study
from apparate_jax.bench.study import Inputs, Pattern
from apparate_jax.bench.workload import read_trace
from apparate_jax.errors import DataError

Live = Callable[[Workload, LiveConfig, Progress], dict[str, Any]]
"""Runs a workload on the wall clock; a report of ``bench live``."""
Size = Callable[[Path], int]
"""Bytes of the parameters of a checkpoint's model."""
VERSIONS = ("apparate-jax", "jax", "numpy")
"""Packages whose release a part depends on."""


@dataclass(slots=True)
class Given:
    """What parts are run with: the workloads' files, each read once.

    Attributes:
        suite: Workloads.
        config: Settings.
        live: Runs a workload live, None if nothing is.
        size: Bytes of a checkpoint's parameters, None if nobody can tell.
    """

    suite: Suite
    config: PaperConfig
    live: Live | None = None
    size: Size | None = None
    _read: dict[Path, Recording] = field(default_factory=dict)
    _digests: dict[Path, str] = field(default_factory=dict)

    def recording(self, path: Path) -> Recording:
        """A recording."""
        if path not in self._read:
            self._read[path] = recordings.load(path)
        return self._read[path]

    def check(self) -> None:
        """Read what parts are made of, before hours of work rest on it.

        Raises:
            DataError: A recording or arrivals cannot be read, or there are too few of these.
        """
        wanted = self.config.requests + self.config.settle
        for workload in self.suite.workloads:
            self.inputs(workload)
            if workload.arrivals is not None:
                count = len(read_trace(workload.arrivals))
                if count < wanted:
                    raise DataError(
                        f"{workload.name}: {workload.arrivals} has {count} arrivals, expected at "
                        f"least {wanted}: take fewer --requests, or leave it out of the suite"
                    )

    def inputs(self, workload: Workload) -> Inputs:
        """A workload's recordings."""
        heavy = None if workload.heavy is None else self.recording(workload.heavy)
        return Inputs((self.recording(workload.trace),), heavy)

    def kind(self, workload: Workload) -> str | None:
        """Text or images, as was said, or by the names of model and data."""
        return workload.kind or kind_of(self.recording(workload.trace))

    def digest(self, path: Path) -> str:
        """Of what a file or directory holds."""
        if path not in self._digests:
            self._digests[path] = digest_of(path)
        return self._digests[path]

    def leads(self, workload: Workload) -> bool:
        """Whether this is the first workload of its kind."""
        kinds = [self.kind(one) for one in self.suite.workloads]
        names = [one.name for one in self.suite.workloads]
        return kinds.index(self.kind(workload)) == names.index(workload.name)


Run = Callable[[Given, Workload, Progress], dict[str, Any]]


class Part(NamedTuple):
    """One measurement.

    Attributes:
        name: As in the file's name.
        title: For people.
        run: Makes the result.
        uses: Keys of the suite file whose contents it depends on.
        weight: About how many replays under a controller it takes, for each seed.
        every: Whether it is made for every workload, and not just for the first of each kind.
        seeded: Whether it is run once for each seed.
        needed: Whether no report can be made without it.
    """

    name: str
    title: str
    run: Run
    uses: tuple[str, ...] = ("trace",)
    weight: float = 1.0
    every: bool = False
    seeded: bool = True
    needed: bool = False


def names_of(given: Given, workload: Workload) -> tuple[str, ...]:
    """The systems that a workload's recordings have everything for."""
    tailored = given.recording(workload.trace).entropies is None
    return tuple(name for name in SYSTEMS if not (tailored and name.startswith("deebert")))


def _systems(given: Given, workload: Workload, progress: Progress) -> dict[str, Any]:
    names = names_of(given, workload)
    return measure.systems(given.inputs(workload), names, given.config.study(workload), progress)


def _study(name: str, systems: Sequence[str], quick: Sequence[str]) -> Run:
    """A study of :mod:`apparate_jax.bench.studies`, with fewer systems in a quick run."""

    def run(given: Given, workload: Workload, progress: Progress) -> dict[str, Any]:
        chosen = tuple(quick if given.config.quick else systems)
        inputs = given.inputs(workload)
        return run_study(name, inputs, given.config.study(workload, chosen), progress)

    return run


def _arrivals(given: Given, workload: Workload, progress: Progress) -> dict[str, Any]:
    patterns = [Pattern("fixed")]
    if workload.arrivals is not None:
        patterns.append(Pattern(workload.arrivals.stem, read_trace(workload.arrivals)))
    inputs = given.inputs(workload)._replace(patterns=tuple(patterns))
    systems = ("apparate", "oracle") if given.config.quick else ("apparate", "paper", "oracle")
    return run_study("arrivals", inputs, given.config.study(workload, systems), progress)


def _ramps(given: Given, workload: Workload, progress: Progress) -> dict[str, Any]:
    assert workload.heavy is not None  # there is a reason not to run it otherwise
    both = (given.recording(workload.trace), given.recording(workload.heavy))
    systems = ("apparate", "oracle") if given.config.quick else ("apparate", "paper", "oracle")
    report = run_study("ramps", Inputs(both), given.config.study(workload, systems), progress)
    styles = {"trace 1": "our ramps", "trace 2": "DeeBERT's ramps"}
    for rows in (report["rows"], report["by_seed"]):
        for row in rows:
            row["setting"] = styles[row["setting"]]
    return report


def _overheads(given: Given, workload: Workload, progress: Progress) -> dict[str, Any]:
    size = None
    if workload.checkpoint is not None and given.size is not None:
        size = given.size(workload.checkpoint)
    made = measure.overheads(given.inputs(workload), size, given.config.study(workload))
    progress(1, 1, "overheads")
    return made


def _live(given: Given, workload: Workload, progress: Progress) -> dict[str, Any]:
    assert given.live is not None  # there is a reason not to run it otherwise
    return given.live(workload, given.config.live(workload), progress)


LIVE_USES = ("checkpoint", "data", "arrivals")
CORE, PAIR = ("apparate", "paper", "oracle"), ("apparate", "paper")
PARTS: tuple[Part, ...] = (
    Part("systems", "every system", _systems, ("trace", "heavy"), 16, True, needed=True),
    Part("overheads", "overheads", _overheads, ("trace", "checkpoint"), 2, True, False),
    Part("accuracy", "accuracy constraint", _study("accuracy", CORE, ("apparate",)), weight=4),
    Part("budget", "ramp budget", _study("budget", PAIR, ("apparate",)), weight=4),
    Part("slo", "SLO", _study("slo", CORE, ("apparate",)), weight=3),
    Part("window", "window", _study("window", ("apparate",), ("apparate",)), weight=6),
    Part("load", "load", _study("load", PAIR, ("apparate",)), weight=7),
    Part("platform", "platforms", _study("platform", CORE, ("apparate", "oracle")), weight=5),
    Part("arrivals", "arrivals", _arrivals, ("trace", "arrivals"), 3),
    Part("ramps", "ramp styles", _ramps, ("trace", "heavy"), 2, every=True),
    Part("tuner", "threshold search", _study("tuner", PAIR, PAIR), weight=3),
    Part(
        "live",
        "live, on the wall clock",
        _live,
        ("checkpoint", "data", "arrivals"),
        40,
        True,
        False,
    ),
)
"""Every part, in the order in which they run."""


def why_not(part: Part, workload: Workload, given: Given) -> str | None:
    """Why a part is not run for a workload; None if it is."""
    if part.name == "live":
        return _why_not_live(workload, given)
    if part.name == "ramps" and workload.heavy is None:
        return "no recording with DeeBERT's ramps was named (heavy)"
    first_only = given.config.sensitivity == "first" and not part.every
    if first_only and not given.leads(workload):
        return "it is made for the first workload of each kind only (--sensitivity all)"
    return None


def _why_not_live(workload: Workload, given: Given) -> str | None:
    if workload.checkpoint is None or workload.data is None:
        return "no checkpoint and data were named for a run on the wall clock"
    if given.config.quick:
        return "a quick run has nothing live"
    return None if given.live is not None else "it was not asked for"


def settings_of(part: Part, workload: Workload, given: Given) -> dict[str, Any]:
    """Settings that a part's result depends on (JSON values)."""
    kept = given.config.as_json()
    del kept["sensitivity"]  # of which parts there are, not of what they measure
    for name in ("live_rounds", "live_round_s"):
        if part.name != "live":
            del kept[name]
    named: dict[str, Any] = {name: getattr(workload, name) is not None for name in part.uses}
    named |= {"stream": workload.stream, "pace": workload.pace, "rate": workload.rate}
    return kept | named | {"versions": {name: version(name) for name in VERSIONS}}


def digests_of(part: Part, workload: Workload, given: Given) -> list[str]:
    """Of the contents of what a part uses."""
    paths = [getattr(workload, name) for name in part.uses]
    return [given.digest(path) for path in paths if path is not None]
