"""The studies by name: what each varies, which systems it holds against one another, what it shows.

One thing is varied at a time, everything else is as :class:`StudyConfig` says. An SLO implies the
batches that may be formed: a request waits for one batch at most and then for its own, so a batch
may take half of the SLO; the SLO is a multiple of twice the latency of a single input.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from apparate_jax.bench import study_control
from apparate_jax.bench.baselines import DEFAULT
from apparate_jax.bench.report import environment
from apparate_jax.bench.study import (
    Cell,
    Inputs,
    Pattern,
    Progress,
    Row,
    StudyConfig,
    means,
    run_cells,
    usual,
)
from apparate_jax.core import Profile
from apparate_jax.errors import ConfigError, DataError
from apparate_jax.serve.engine import EngineConfig

Keys = tuple[tuple[str, str], ...]
Cells = Callable[[Inputs, StudyConfig], list[Cell]]
HELD: Keys = (
    ("p50_saved_frac", "median latency saved, %"),
    ("disagreement", "disagreement, %"),
    ("windows_below_constraint", "512-windows below the constraint, %"),
)
RATIOS: Keys = (
    ("p50_saved_frac", "median latency saved, %"),
    ("p95_saved_frac", "p95 saved, %"),
    ("p99_saved_frac", "p99 saved, %"),
)


class Study(NamedTuple):
    """A study of the table.

    Attributes:
        what: One line for people.
        run: Its rows, one for each setting, system and seed.
        keys: The figures that the picture shows, and their axes.
        picture: ``"points"``, ``"settings"`` or ``"bars"``.
    """

    what: str
    run: Callable[[Inputs, StudyConfig, Progress | None], list[Row]]
    keys: Keys = HELD
    picture: str = "settings"


def _baselines(inputs: Inputs, config: StudyConfig) -> list[Cell]:
    del inputs
    return [replace(usual(config), setting="all")]


def _accuracy(inputs: Inputs, config: StudyConfig) -> list[Cell]:
    del inputs
    base = usual(config)
    return [
        replace(base, setting=f"{loss:.1%}", control=replace(base.control, accuracy=1.0 - loss))
        for loss in (0.005, 0.01, 0.02, 0.05)
    ]


def _budget(inputs: Inputs, config: StudyConfig) -> list[Cell]:
    del inputs
    base = usual(config)
    return [
        replace(base, setting=f"{b:.0%}", placement=replace(base.placement, ramp_budget=b))
        for b in (0.01, 0.02, 0.05, 0.10)
    ]


def largest_batch(profile: Profile, slo_ms: float) -> int:
    """The largest batch shape that takes at most half of an SLO; the smallest if none does."""
    fits = [s.batch for s in profile.shapes if s.vanilla_ms <= slo_ms / 2]
    return max(fits, default=profile.shapes[0].batch)


def _slo(inputs: Inputs, config: StudyConfig) -> list[Cell]:
    profile, base = inputs.traces[0].profile, usual(config)
    cells = []
    for factor in (1, 2, 4):
        most = largest_batch(profile, factor * 2 * profile.shapes[0].vanilla_ms)
        cells.append(replace(base, setting=f"x{factor}: batch {most}", max_batch=most))
    return cells


def _ramps(inputs: Inputs, config: StudyConfig) -> list[Cell]:
    styles = [f"trace {i}" for i, _ in enumerate(inputs.traces, 1)]
    return [replace(usual(config), setting=s, traces=(i,)) for i, s in enumerate(styles)]


def _platform(inputs: Inputs, config: StudyConfig) -> list[Cell]:
    base, largest = usual(config), inputs.traces[0].profile.shapes[-1].batch
    return [
        replace(base, setting="batch 1", max_batch=1),
        replace(base, setting=f"to {max(1, largest // 2)}", max_batch=max(1, largest // 2)),
        *(
            replace(base, setting=f"to {largest}, {n} under way", engine=EngineConfig(n))
            for n in (1, 2, 4)
        ),
    ]


def _window(inputs: Inputs, config: StudyConfig) -> list[Cell]:
    del inputs
    base = usual(config)
    return [
        replace(base, setting=str(n), control=replace(base.control, window=n))
        for n in (256, 512, 1024, 2048, 4096, 8192)
    ]


def _load(inputs: Inputs, config: StudyConfig) -> list[Cell]:
    del inputs
    engine = EngineConfig(queue_size=config.requests + config.settle)
    return [
        replace(usual(config), setting=f"{load:.0%}", load_frac=load, engine=engine)
        for load in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
    ]


def _arrivals(inputs: Inputs, config: StudyConfig) -> list[Cell]:
    """Poisson's first; of a trace the first arrivals, so that these are what is at the load."""
    others = [p for p in inputs.patterns if p != Pattern("poisson")]
    names = ["poisson", *(p.name for p in others)]
    if not others or len(set(names)) < len(names):
        raise ConfigError(
            f"arrivals are {', '.join(names)}: expected others to hold against Poisson's, each of "
            "another name (--arrivals FILE.csv, more than once for several)"
        )
    wanted = config.requests + config.settle
    engine = EngineConfig(queue_size=wanted)
    cells = [replace(usual(config), setting="poisson", pattern=Pattern("poisson"), engine=engine)]
    for name, times in others:
        if times is not None and len(times) < wanted:
            raise DataError(
                f"the trace {name} has {len(times)} arrivals, expected {wanted}: "
                f"{config.requests} requests and {config.settle} before them"
            )
        pattern = Pattern(name, None if times is None else times[:wanted])
        cells.append(replace(cells[0], setting=name, pattern=pattern))
    return cells


def _grid(
    cells: Cells,
    systems: Sequence[str],
    inputs: Inputs,
    config: StudyConfig,
    progress: Progress | None,
) -> list[Row]:
    return run_cells(cells(inputs, config), config.systems or systems, inputs, config, progress)


def _every(inputs: Inputs, config: StudyConfig, progress: Progress | None) -> list[Row]:
    tailored = any(trace.entropies is None for trace in inputs.traces)
    names = [n for n in (*DEFAULT, "two-layer") if not (tailored and n.startswith("deebert"))]
    return _grid(_baselines, names, inputs, config, progress)


ABLATION = (
    *("apparate", "no-deferral", "no-adjustment", "no-shadow", "no-guard", "greedy", "always-on"),
    *("paper", "artifact"),
)
CORE = ("apparate", "paper", "initial-only", "oracle")
STUDIES: dict[str, Study] = {
    "baselines": Study("every system", _every, picture="points"),
    "accuracy": Study("the accuracy constraint", partial(_grid, _accuracy, CORE)),
    "budget": Study("the ramp budget", partial(_grid, _budget, ("apparate", "paper"))),
    "slo": Study("the largest batch that an SLO allows", partial(_grid, _slo, CORE), RATIOS),
    "ramps": Study("ramp styles: a trace each", partial(_grid, _ramps, CORE)),
    "platform": Study(
        "batches and how many are under way", partial(_grid, _platform, CORE), RATIOS
    ),
    "ablation": Study(
        "what each part is worth", partial(_grid, _baselines, ABLATION), HELD, "bars"
    ),
    "tuner": Study("threshold searches on windows", study_control.tuner, study_control.TUNER),
    "window": Study("samples that thresholds are tuned on", partial(_grid, _window, ("apparate",))),
    "load": Study("the load", partial(_grid, _load, ("apparate", "always-on", "paper")), RATIOS),
    "arrivals": Study("when requests arrive", partial(_grid, _arrivals, CORE), RATIOS),
    "guard": Study("what is promised", study_control.guard, study_control.GUARD, "bars"),
}
"""Every study by its name."""


def run_study(
    name: str, inputs: Inputs, config: StudyConfig | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Run a study; its report (JSON values).

    Args:
        name: One of :data:`STUDIES`.
        inputs: Recordings.
        config: What its cells share.
        progress: Called with what is done, in total, and what is being done.

    Raises:
        ConfigError: There is no such study.
    """
    if name not in STUDIES:
        raise ConfigError(f"the study is {name!r}, expected one of {', '.join(STUDIES)}")
    config = config or StudyConfig()
    if name == "load":
        config = replace(config, rate_rps=None)
    first = inputs.traces[0]
    rows = STUDIES[name].run(inputs, config, progress)
    return {
        "study": name,
        "what": STUDIES[name].what,
        "model": first.model,
        "workload": ", ".join(trace.workload for trace in inputs.traces),
        "stream": config.stream,
        "accuracy_constraint": config.accuracy,
        "load_frac": config.load_frac,
        "rate_rps": config.rate_rps,
        "requests": config.requests + config.settle,
        "seeds": config.seeds,
        "recorded_on": {"device": first.profile.device, "jax": first.profile.jax_version},
        "rows": means(rows),
        "by_seed": rows,
        "environment": environment(),
    }
