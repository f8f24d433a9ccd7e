"""The report's sections: which part each shows, how, and what is said beside the paper."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apparate_jax.bench.paper import draw, findings
from apparate_jax.bench.paper.findings import Result, Subject
from apparate_jax.bench.paper.verdicts import Finding
from apparate_jax.bench.studies import ABLATION, STUDIES
from apparate_jax.bench.study_plot import plot_bars, plot_points, plot_study
from apparate_jax.bench.workload import load_of

Row = Mapping[str, Any]
Draw = Callable[[Subject, Result, Path], None]
FIGURES = (
    ("p25_saved_frac", "p25 saved"),
    ("p50_saved_frac", "p50 saved"),
    ("p95_saved_frac", "p95 saved"),
    ("p99_saved_frac", "p99 saved"),
    ("agreement", "agreement"),
    ("windows_below_constraint", "windows below"),
    ("throughput_ratio", "throughput"),
)
LATENCIES = (
    *((f"{p}_ms", f"{p}, ms") for p in ("p25", "p50", "p95", "p99")),
    *(one for one in FIGURES if one[0] not in ("agreement", "windows_below_constraint")),
)
SEARCHES = (
    ("of_exact_frac", "of exact"),
    ("disagreement", "disagreement"),
    ("next_disagreement", "on the next window"),
    ("search_ms", "one search, ms"),
)
SUMMED = ("vanilla", "apparate", "paper", "oracle")
TIMED_ONCE = ("apparate", "paper", "initial-only", "uniform", "past-20", "past-40", "past-80")
FIELD = (
    *("apparate", "paper", "branchynet", "branchynet+", "branchynet-opt"),
    *("deebert", "deebert+", "deebert-opt", "two-layer", "oracle"),
)


class Table(NamedTuple):
    """A table as text.

    Attributes:
        columns: Heads.
        rows: Cells of each row, as people read them.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Section(NamedTuple):
    """One section.

    Attributes:
        key: In addresses and names of files.
        title: For people.
        about: What is shown, in a sentence or two.
        part: Whose result it shows.
        findings: Ours beside the paper's.
        table: Of a result.
        draw: Its picture, None without one.
    """

    key: str
    title: str
    about: str
    part: str
    findings: Callable[[Subject, Result], list[Finding]]
    table: Callable[[Result], Table]
    draw: Draw | None = None


def cell(value: Any, key: str) -> str:
    """A figure as people read it: shares in per cent, ratios as factors."""
    if value is None:
        return "-"
    if key.endswith("_ratio"):
        return f"x {value:.3f}"
    if key.endswith("_ms"):
        return f"{value:.2f}"
    return f"{value:.2%}" if "agree" in key else f"{value:.1%}"


def table_of(
    rows: Sequence[Row], figures: Sequence[tuple[str, str]], named: Sequence[tuple[str, str]]
) -> Table:
    """Rows with those figures that any of them has.

    Args:
        rows: Means over seeds.
        figures: Keys and heads.
        named: Keys and heads of what stands before the figures.
    """
    there = [(key, head) for key, head in figures if any(row.get(key) is not None for row in rows)]
    cells = tuple(
        (*(str(row[key]) for key, _ in named), *(cell(row.get(key), key) for key, _ in there))
        for row in rows
    )
    return Table((*(head for _, head in named), *(head for _, head in there)), cells)


def _chosen(systems: Sequence[str], *figures: tuple[str, str]) -> Callable[[Result], Table]:
    def table(result: Result) -> Table:
        by_name = {row["system"]: row for row in result["rows"]}
        rows = [by_name[name] for name in systems if name in by_name]
        return table_of(rows, figures, (("system", "system"),))

    return table


def _settings(*figures: tuple[str, str]) -> Callable[[Result], Table]:
    named = (("setting", "setting"), ("system", "system"))
    return lambda result: table_of(result["rows"], figures, named)


def _overheads(result: Result) -> Table:
    """A row per batch shape, then control and memory."""
    rows = [
        (
            f"batch {shape['batch']}: the original, and what ramps add",
            f"{shape['vanilla_ms']:.2f} ms",
            f"{shape['added_frac']:+.1%} (heads alone {shape['heads_frac']:.1%})",
        )
        for shape in result["shapes"]
    ]
    for name, cost in result["control"].items():
        for key, what in (("feedback_ms", "feedback of a batch"), ("tuning_ms", "a tuning")):
            if cost[key] is not None:
                rows.append((f"control, {name}: {what}", f"{cost[key]:.3f} ms", ""))
        rows.append(
            (
                f"control, {name}: on average per batch",
                f"{cost['mean_ms_per_batch']:.3f} ms",
                f"{cost['tunings']} tunings in {cost['batches']} batches",
            )
        )
    whole, ramps = result["parameter_bytes"], sum(result["ramp_bytes"])
    if ramps:
        share = f"{ramps / whole:.2%} of the model's parameters" if whole else ""
        rows.append(
            (f"memory of all {len(result['ramp_bytes'])} ramps", f"{ramps / 1024:.0f} KiB", share)
        )
        active = result["active_bytes"]
        share = f"{active / whole:.2%} of the model's parameters" if whole else ""
        rows.append(("memory of the active ramps", f"{active / 1024:.0f} KiB", share))
    return Table(("what", "measured", ""), tuple(rows))


def _live(result: Result) -> Table:
    vanilla, early, oracle = result["vanilla"], result["apparate"], result["oracle"]
    keys = ("p25_ms", "p50_ms", "p95_ms", "p99_ms", "throughput_rps")
    rows = tuple(
        (
            key.replace("_ms", ", ms").replace("_rps", ", requests/s"),
            f"{vanilla[key]:.1f}",
            f"{early[key]:.1f}",
            f"{early[key] / vanilla[key] - 1:+.1%}",
            f"{oracle[key]:.1f}" if oracle.get(key) is not None else "-",
        )
        for key in keys
    )
    agreement = ("agreement", "100 %", f"{early['agreement']:.2%}", "", "-")
    return Table(("", "the original", "early answers", "change", "optimal"), (*rows, agreement))


def _title(subject: Subject, result: Result) -> str:
    runs = result["rows"][0]["runs"]
    config = subject.config
    load = load_of(config.load_frac, subject.rate_rps)
    return (
        f"{subject.workload}: {runs} run{'s' if runs > 1 else ''} of "
        f"{config.requests + config.settle} requests {load}"
    )


def _draw_latency(subject: Subject, result: Result, path: Path) -> None:
    draw.plot_latency(result, _title(subject, result), path)


def _draw_held(subject: Subject, result: Result, path: Path) -> None:
    draw.plot_held(result, subject.config.accuracy, f"{subject.workload}: first run", path)


def _draw_field(subject: Subject, result: Result, path: Path) -> None:
    rows = [row for row in result["rows"] if row["system"] in FIELD]
    plot_points(rows, _title(subject, result), subject.config.accuracy, path)


def _draw_ablation(subject: Subject, result: Result, path: Path) -> None:
    rows = [row for row in result["rows"] if row["system"] in ABLATION]
    plot_bars(rows, STUDIES["ablation"].keys, _title(subject, result), path)


def _draw_study(subject: Subject, result: Result, path: Path) -> None:
    del subject
    one = STUDIES[result["study"]]
    plot_study(result, one.keys, one.picture, path)


def _nothing(subject: Subject, result: Result) -> list[Finding]:
    """The paper has no figure of it."""
    del subject, result
    return []


def _study(
    key: str, title: str, about: str, said: Callable[[Subject, Result], list[Finding]] = _nothing
) -> Section:
    figures = SEARCHES if key == "tuner" else FIGURES
    return Section(key, title, about, key, said, _settings(*figures), _draw_study)


SECTIONS: tuple[Section, ...] = (
    Section(
        "latency",
        "Latency against the original and the optimum",
        "Distribution of latency, waiting included, on the same arrivals. The optimum lets each "
        "answer leave at its earliest right ramp, free of cost; nobody can.",
        "systems",
        findings.latency,
        _chosen(SUMMED, *LATENCIES),
        _draw_latency,
    ),
    Section(
        "accuracy-over-time",
        "Accuracy over time",
        "Agreement with the original model against the constraint, for control that never rests "
        "and for thresholds that were tuned once.",
        "systems",
        findings.held,
        _chosen(TIMED_ONCE, *FIGURES),
        _draw_held,
    ),
    Section(
        "existing",
        "Existing early-exit strategies and two-layer systems",
        "Other systems as the paper runs them: inputs run to the end, so batches never shrink. "
        "What other systems reach here is not judged, only placed beside what the paper saw.",
        "systems",
        findings.existing,
        _chosen(FIELD, *FIGURES),
        _draw_field,
    ),
    Section(
        "ablation",
        "What each part is worth",
        "Our control with one thing taken away, and the paper's with its two sets of constants.",
        "systems",
        findings.ablation,
        _chosen(ABLATION, *FIGURES),
        _draw_ablation,
    ),
    _study(
        "accuracy",
        "Sensitivity: accuracy constraint",
        "The share of answers that may differ from the original's.",
        findings.settings("accuracy"),
    ),
    _study(
        "budget",
        "Sensitivity: ramp budget",
        "What active ramps may add to the worst-case latency.",
        findings.settings("budget"),
    ),
    _study(
        "slo",
        "Sensitivity: SLO",
        "Multiples of twice the latency of a single input; an SLO bounds the batches.",
        findings.settings("slo"),
    ),
    _study(
        "window",
        "Sensitivity: window",
        "Samples that thresholds are tuned on. The paper looks at the last 16 and prints no study "
        "of it.",
    ),
    _study(
        "load",
        "Load",
        "Arrival rate as a share of the original's throughput. The paper has no figure of it.",
    ),
    _study(
        "platform",
        "Platforms",
        "Batches and how many are under way at a time, for the paper's two serving platforms.",
        findings.platforms,
    ),
    _study(
        "arrivals",
        "Arrivals",
        "Poisson's, evenly spaced as frames of a video, and traces where the suite names one. The "
        "paper's text arrives as in a trace of Azure Functions; it has no study of arrivals.",
    ),
    _study(
        "ramps",
        "Ramp styles",
        "Our light ramps and DeeBERT's heavier ones, under the same control.",
        findings.ramps,
    ),
    _study(
        "tuner",
        "Threshold search",
        "Each search on windows of the stream, and what its thresholds do on the next window.",
        findings.tuner,
    ),
    Section(
        "overheads",
        "Overheads",
        "What splitting and ramps cost, from the profile of the device; time of control in a "
        "replay on this machine; memory of ramps.",
        "overheads",
        findings.overheads,
        _overheads,
    ),
    Section(
        "live",
        "Live, on the wall clock",
        "Both systems on real engines in turn, and the original twice: by how much equal systems "
        "differ is what this machine lets nobody measure.",
        "live",
        findings.live,
        _live,
    ),
)  # fmt: skip
"""In the report's order."""
