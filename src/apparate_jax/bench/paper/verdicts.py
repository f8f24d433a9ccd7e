"""Our figures beside the paper's: better, equal or worse, from the numbers alone.

The rule, the same for every figure: ours is the mean over runs; its *tolerance* is half of what the
runs differ by at most (or a noise floor that was measured), and never less than rounding, nor than
a point where the paper's figure was read off a picture. Ours is **better** if it lies beyond
the paper's range by more than the tolerance on the good side, **worse** on the bad side, and
**equal** otherwise. Figures without a good side (what another system reaches, what a part is worth)
are *higher*, *as published* or *lower*.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from apparate_jax.bench.paper.published import Published

WORDS = ("better", "equal", "worse", "higher", "as published", "lower", "not comparable")
BETTER, EQUAL, WORSE, HIGHER, SAME, LOWER, NOT = WORDS

ROUNDING = {"%": 0.05, "ms": 0.005, "x": 0.005}
"""Half of the last digit that is printed: what differs by less is no difference."""
READ_OFF = 1.0
"""Points by which figures that were read off a picture may be wrong."""


class Ours(NamedTuple):
    """A figure of ours, in the unit of the paper's.

    Attributes:
        mean: Over runs.
        low: Smallest of any run.
        high: Largest of any run.
        runs: How many.
    """

    mean: float
    low: float
    high: float
    runs: int

    @property
    def tolerance(self) -> float:
        """Half of what runs differ by."""
        return (self.high - self.low) / 2


def ours_of(values: Sequence[float | None], scale: float = 1.0) -> Ours | None:
    """A figure from its runs; None if one has none."""
    given = [value * scale for value in values if value is not None]
    if not given or len(given) < len(values):
        return None
    return Ours(sum(given) / len(given), min(given), max(given), len(given))


def judge(ours: Ours, published: Published, tolerance: float | None = None) -> str:
    """One of :data:`WORDS`, by the rule above.

    Args:
        ours: Our figure.
        published: The paper's.
        tolerance: Instead of the runs' own.
    """
    allowed = ours.tolerance if tolerance is None else tolerance
    allowed = max(allowed, READ_OFF if published.read_off else ROUNDING[published.unit])
    above, below = ours.mean > published.high + allowed, ours.mean < published.low - allowed
    if published.better == "neither":
        return HIGHER if above else LOWER if below else SAME
    good, bad = (above, below) if published.better == "higher" else (below, above)
    return BETTER if good else WORSE if bad else EQUAL


class Finding(NamedTuple):
    """One of our figures and the paper's.

    Attributes:
        workload: Whose.
        published: The paper's figure.
        ours: Ours, None where there is none.
        verdict: One of :data:`WORDS`.
        reason: Why it is not comparable, or a remark.
    """

    workload: str
    published: Published
    ours: Ours | None
    verdict: str
    reason: str = ""

    @property
    def sentence(self) -> str:
        """The verdict in words, with both figures."""
        what, theirs = f"{self.workload}: {self.published.what}", self.published.shown
        apart = f"not comparable with the paper's {theirs}: {self.reason}."
        if self.ours is None:
            return f"{what} is {apart}"
        mean = number(self.ours.mean, self.published.unit)
        if self.ours.runs > 1:
            low, high = number(self.ours.low, ""), number(self.ours.high, "")
            mean += f" ({low} to {high} in {self.ours.runs} runs)"
        if self.verdict == NOT:
            return f"{what} is {mean}; {apart}"
        remark = f" ({self.reason})" if self.reason else ""
        return f"{what} is {mean}, the paper's {theirs}: {self.verdict}{remark}."

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "workload": self.workload,
            "key": self.published.key,
            "what": self.published.what,
            "unit": self.published.unit,
            "ours": None if self.ours is None else self.ours._asdict(),
            "paper": {
                "low": self.published.low,
                "high": self.published.high,
                "where": self.published.where,
                "read_off_a_figure": self.published.read_off,
            },
            "better": self.published.better,
            "verdict": self.verdict,
            "reason": self.reason,
            "sentence": self.sentence,
        }


def number(value: float, unit: str) -> str:
    """A figure with its unit, as people read it."""
    digits = 2 if abs(value) < 10 and unit in ("ms", "x") else 1
    if 0.0005 <= abs(value) < 0.05 and unit == "%":
        digits = 3
    shown = f"{value:.{digits}f}"
    shown = shown.removeprefix("-") if float(shown) == 0 else shown
    return f"x {shown}" if unit == "x" else f"{shown} {unit}".strip()


def compare(
    workload: str,
    published: Published,
    ours: Ours | None,
    *,
    missing: str = "",
    remark: str = "",
    tolerance: float | None = None,
) -> Finding:
    """A finding.

    Args:
        workload: Whose figure.
        published: The paper's.
        ours: Ours, None where there is none.
        missing: Why there is none.
        remark: What is to be known about the comparison.
        tolerance: Instead of the runs' own.
    """
    if ours is None:
        return Finding(workload, published, None, NOT, missing or "it was not measured")
    return Finding(workload, published, ours, judge(ours, published, tolerance), remark)
