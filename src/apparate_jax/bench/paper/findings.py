"""From the results of parts to our figures beside the paper's, section by section.

Only arithmetic on what was measured, seed by seed; every verdict is
:func:`apparate_jax.bench.paper.verdicts.judge`'s.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from apparate_jax.bench.paper.config import PaperConfig
from apparate_jax.bench.paper.published import KEYS, of_any_kind, published
from apparate_jax.bench.paper.verdicts import NOT, Finding, Ours, compare, ours_of

Result = dict[str, Any]
OURS, ORACLE = "apparate", "oracle"
PERCENT = 100.0
THROUGHPUT_TOLERANCE = 0.02
"""Of the ratio of throughputs: what the ramp budget allows."""
WINDOW_OF_SEARCH = "512"
"""Samples of the window whose search is held against the paper's."""
USUAL_PLATFORM = ", 2 under way"
"""How the setting ends that is the engine's default."""
FREE_RAMPS = -0.02
"""Share of the latency by which ramps may seem to make a batch faster in a sound profile."""
NO_KIND = "whether it is text or images is not known, say so in a suite file (kind)"
NO_HEAVY = "with our ramps, by entropy: no recording with DeeBERT's own was named (heavy)"


class Subject(NamedTuple):
    """Whose figures.

    Attributes:
        workload: Its name.
        kind: Text or images, None where that is not known.
        config: Settings of the evaluation.
        rate_rps: Its own requests per second, None for the evaluation's load.
    """

    workload: str
    kind: str | None
    config: PaperConfig
    rate_rps: float | None = None

    @property
    def unusual(self) -> str:
        """Why settings are not the paper's; empty if they are."""
        usual = PaperConfig()
        for key, what in (("accuracy", "accuracy constraint"), ("ramp_budget", "ramp budget")):
            here, there = getattr(self.config, key), getattr(usual, key)
            if here != there:
                return f"the {what} is {here:g} here, {there:g} in the paper"
        return ""


def beside(
    subject: Subject,
    key: str,
    ours: Ours | None,
    *,
    apart: str = "",
    remark: str = "",
    tolerance: float | None = None,
    missing: str = "",
) -> Finding:
    """Our figure beside the paper's for this kind of workload.

    Args:
        subject: Whose.
        key: Of the paper's figure.
        ours: Ours, None where there is none.
        apart: Why they are not comparable all the same.
        remark: What is to be known about the comparison.
        tolerance: Instead of the runs' own.
        missing: Why there is none of ours.
    """
    theirs = published(key, subject.kind)
    if theirs is None:
        theirs = of_any_kind(key)
        apart = apart or (NO_KIND if subject.kind is None else f"the paper's is of {theirs.kind}")
    if apart and ours is not None:
        return Finding(subject.workload, theirs, ours, NOT, apart)
    return compare(
        subject.workload, theirs, ours, missing=missing, remark=remark, tolerance=tolerance
    )


def values(result: Result, system: str, key: str, setting: str | None = None) -> list[Any]:
    """A figure of a system, seed by seed; empty if it was not run."""
    return [
        row.get(key)
        for row in result["by_seed"]
        if row["system"] == system and setting in (None, row["setting"])
    ]


def _share(result: Result, system: str, key: str, setting: str | None = None) -> Ours | None:
    return ours_of(values(result, system, key, setting), PERCENT)


def _fall(whole: Sequence[float], part: Sequence[float]) -> Ours | None:
    """By how much the second is below the first, seed by seed; None without a first above 0."""
    if not whole or len(whole) != len(part) or min(whole) <= 0:
        return None
    return ours_of([1 - b / a for a, b in zip(whole, part, strict=True)], PERCENT)


def of_optimal(result: Result, setting: str | None = None) -> Ours | None:
    """Share of the oracle's median saving that ours has."""
    best, own = (values(result, name, "p50_saved_frac", setting) for name in (ORACLE, OURS))
    if not best or len(best) != len(own) or min(best) <= 0:
        return None
    return ours_of([a / b for a, b in zip(own, best, strict=True)], PERCENT)


def latency(subject: Subject, result: Result) -> list[Finding]:
    """Latency against the original and the optimum, throughput."""
    apart = subject.unusual
    made = [
        beside(subject, f"{p} saved", _share(result, OURS, f"{p}_saved_frac"), apart=apart)
        for p in ("p25", "p50", "p95")
    ]
    ratio = ours_of(values(result, OURS, "throughput_ratio"))
    made.append(beside(subject, "throughput", ratio, tolerance=THROUGHPUT_TOLERANCE))
    made.append(
        beside(
            subject,
            "of optimal",
            of_optimal(result),
            apart=apart,
            missing="the optimum saves nothing of the median",
        )
    )
    own = values(result, OURS, "p50_saved_frac")
    for batches in (20, 40, 80):
        name = f"past-{batches}"
        found = beside(
            subject,
            "gap to past",
            _fall(values(result, name, "p50_saved_frac"), own),
            remark=_breaks(result, name, subject),
            missing=f"{name} saves nothing of the median",
        )
        what = f"gap to an optimum tuned on the past {batches} batches"
        made.append(found._replace(published=found.published._replace(what=what)))
    return made


def _breaks(result: Result, system: str, subject: Subject) -> str:
    """A remark where a system does not keep the constraint."""
    agreement = float(np.mean(values(result, system, "agreement")))
    if agreement >= subject.config.accuracy:
        return ""
    return f"{system} agrees in {agreement:.1%} only, below the constraint"


def held(subject: Subject, result: Result) -> list[Finding]:
    """Accuracy: the constraint, and what tuning once or always reaches."""
    apart = subject.unusual
    made = [beside(subject, "agreement", _share(result, OURS, "agreement"), apart=apart)]
    for name, key in ((OURS, "continual"), ("initial-only", "once"), ("uniform", "uniform")):
        for what, figure in (("agreement", "agreement"), ("saved", "p50_saved_frac")):
            ours = _share(result, name, figure)
            made.append(beside(subject, f"{key} {what}", ours, apart=apart))
    return made


def existing(subject: Subject, result: Result) -> list[Finding]:
    """BranchyNet, DeeBERT and the two-layer system."""
    made = []
    for base in ("branchynet", "deebert"):
        remark = "" if base == "branchynet" or result["heavy"] else NO_HEAVY
        for name in (base, f"{base}+", f"{base}-opt"):
            for what, figure in (
                ("agreement", "agreement"),
                ("median", "p50_saved_frac"),
                ("p95", "p95_saved_frac"),
            ):
                ours = _share(result, name, figure)
                if ours is not None:
                    apart = subject.unusual
                    found = beside(subject, f"{name} {what}", ours, apart=apart, remark=remark)
                    made.append(found)
    own = "our small model is the first third of the model itself"
    for p in ("p50", "p95"):
        theirs, mine = (values(result, name, f"{p}_ms") for name in ("two-layer", OURS))
        made.append(
            beside(
                subject,
                f"two-layer {p}",
                _fall(theirs, mine),
                apart=subject.unusual,
                remark=own,
                missing="no two-layer system was run",
            )
        )
    return made


def ablation(subject: Subject, result: Result) -> list[Finding]:
    """What ramp adjustment is worth."""
    own, without = (values(result, n, "p50_saved_frac") for n in (OURS, "no-adjustment"))
    why = "nothing of the median is saved"
    remark = "our ramps of the start are chosen on held-out samples, the paper's evenly spaced"
    fall = _fall(own, without)
    return [
        beside(subject, "no adjustment", fall, apart=subject.unusual, remark=remark, missing=why)
    ]


def settings(study: str) -> Callable[[Subject, Result], list[Finding]]:
    """Median saved at each setting that the paper has too."""

    def made(subject: Subject, result: Result) -> list[Finding]:
        found = []
        for setting in dict.fromkeys(row["setting"] for row in result["by_seed"]):
            key = f"{study} {setting.partition(':')[0]}"
            if key not in KEYS:
                continue
            ours = _share(result, OURS, "p50_saved_frac", setting)
            apart = subject.unusual if study == "slo" else ""
            found.append(beside(subject, key, ours, apart=apart))
        return found

    return made


def ramps(subject: Subject, result: Result) -> list[Finding]:
    """DeeBERT's ramps under the same control."""
    light, heavy = (
        values(result, OURS, "p50_saved_frac", setting)
        for setting in ("our ramps", "DeeBERT's ramps")
    )
    why = "nothing of the median is saved"
    fall = _fall(light, heavy)
    return [beside(subject, "heavy ramps", fall, apart=subject.unusual, missing=why)]


def platforms(subject: Subject, result: Result) -> list[Finding]:
    """Absolute latencies are of other models and devices."""
    apart = (
        "our settings are of one engine, other models and another device than the paper's two "
        "serving platforms"
    )
    usual = [row["setting"] for row in result["by_seed"] if row["setting"].endswith(USUAL_PLATFORM)]
    base = ours_of(values(result, OURS, "p50_ms", usual[0])) if usual else None
    return [
        beside(subject, f"{name} p50", base, apart=apart) for name in ("clockwork", "tf-serving")
    ]


def tuner(subject: Subject, result: Result) -> list[Finding]:
    """How long a search takes, and what it leaves."""
    machine = "the paper's machine has 32 cores"

    def took(method: str) -> Ours | None:
        return ours_of(values(result, method, "search_ms", WINDOW_OF_SEARCH))

    best = [max(row) for row in zip(*_of_exact(result), strict=True)]
    # The default search is the exact one.
    own = values(result, "exact", "of_exact_frac", WINDOW_OF_SEARCH)
    return [
        beside(subject, "search", took("exact"), remark=machine),
        beside(subject, "grid", took("grid"), remark=f"ours has other levels; {machine}"),
        beside(subject, "search loss", _fall(best, own), missing="no search saves anything"),
    ]


def _of_exact(result: Result) -> list[list[float]]:
    """Saving of each search over the exact one's, by seed."""
    names = list(dict.fromkeys(row["system"] for row in result["by_seed"]))
    every = [values(result, name, "of_exact_frac", WINDOW_OF_SEARCH) for name in names]
    return [[value or 0.0 for value in one] for one in every]


def overheads(subject: Subject, result: Result) -> list[Finding]:
    """What ramps and control cost."""
    added = [shape["added_frac"] for shape in result["shapes"]]
    noisy = (
        "the profile has ramps cost less than nothing at a batch shape: it was taken beside other "
        "work, record the stream again on a quiet machine"
        if min(added) < FREE_RAMPS
        else ""
    )
    worst = Ours(max(added) * PERCENT, max(added) * PERCENT, max(added) * PERCENT, 1)
    per_ramp, whole = result["ramp_bytes"], result["parameter_bytes"]
    share = None
    if per_ramp and whole:
        share = ours_of([size / whole for size in per_ramp], PERCENT)
        assert share is not None  # there are some
        share = Ours(share.high, share.high, share.high, 1)  # the largest ramp's
    control = result["control"]
    return [
        beside(subject, "ramp latency", worst, apart=noisy, remark="the worst batch shape"),
        beside(
            subject,
            "ramp parameters",
            share,
            remark="the largest ramp",
            missing="the size of the model is not known, name its checkpoint in a suite file"
            if per_ramp
            else "the recording holds no sizes of ramps, record the stream again",
        ),
        beside(
            subject,
            "adjustment",
            ours_of([control[OURS]["tuning_ms"]]),
            remark="a round of ours tunes thresholds and chooses ramps at once",
            missing="nothing was tuned in this run",
        ),
        beside(
            subject, "message", None, missing="a replay has no device to send messages to and fro"
        ),
    ]


def live(subject: Subject, result: Result) -> list[Finding]:
    """The same on the wall clock, with the noise floor of the machine as tolerance."""
    compared = result["compared"]
    floor = compared.get("noise_floor", {})
    made = []

    def differ(key: str) -> float:
        """By how much equal systems differ, as a ratio."""
        equal = floor.get(key, {}).get("rounds", [1.0])
        return float(np.median(np.abs(np.asarray(equal) - 1.0)))

    for p in ("p50", "p95"):
        ratios = compared[f"{p}_ratio"]["rounds"]
        saved = ours_of([1 - ratio for ratio in ratios], PERCENT)
        tolerance = PERCENT * differ(f"{p}_ratio")
        remark = f"equal systems differ by {tolerance:.1f} points here"
        made.append(beside(subject, f"{p} saved", saved, tolerance=tolerance, remark=remark))
    agreement = ours_of([result["apparate"]["agreement"]], PERCENT)
    ratio = ours_of(compared["throughput_ratio"]["rounds"])
    made.append(beside(subject, "agreement", agreement))
    allowed = max(THROUGHPUT_TOLERANCE, differ("throughput_ratio"))
    made.append(beside(subject, "throughput", ratio, tolerance=allowed))
    return made


def generative(workload: str = "all") -> list[Finding]:
    """What the paper has and classifiers lack."""
    return [
        compare(workload, of_any_kind(key), None, missing="this project serves classifiers")
        for key in ("t5", "llama2")
    ]
