"""Containers of telemetry: durations, histograms, and what the last answers were like."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the buckets of durations, in seconds."""
RECENT = 4096
"""Answers that percentiles are of."""
SPAN = 512
"""Answers of the window that the promise is about."""


@dataclass(slots=True)
class Duration:
    """How often something happened and how long it took in total.

    Attributes:
        count: Times.
        total_s: Seconds in total.
    """

    count: int = 0
    total_s: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """``count`` times, ``seconds`` together."""
        self.count += count
        self.total_s += seconds


@dataclass(slots=True)
class Histogram:
    """Durations by bucket.

    Attributes:
        counts: i64[len(BOUNDS_S) + 1], the last for what is above all bounds.
        total_s: Sum of all durations.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(BOUNDS_S) + 1, np.int64))
    total_s: float = 0.0

    def add(self, seconds: NDArray[np.float64]) -> None:
        """Durations f64[n]."""
        np.add.at(self.counts, np.searchsorted(BOUNDS_S, seconds), 1)
        self.total_s += float(seconds.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        """Pairs of an upper bound, as Prometheus writes it, and how many were at most that."""
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        return list(zip(bounds, np.cumsum(self.counts).astype(float).tolist(), strict=True))


class Recent:
    """The last answers, :data:`RECENT` of them at most: a ring of their times and exits."""

    def __init__(self) -> None:
        self.finished_s = np.zeros(RECENT)
        self.latency_ms = np.zeros(RECENT)
        self.vanilla_ms = np.zeros(RECENT)  # had there been no ramps
        self.exits = np.zeros(RECENT, np.int32)  # site, or -1
        self.wrong = np.zeros(RECENT, np.bool_)
        self._seen = 0

    def push(
        self,
        finished_s: float,
        latency_ms: NDArray[np.float64],
        vanilla_ms: NDArray[np.float64],
        exits: NDArray[np.int32],
        wrong: NDArray[np.bool_],
    ) -> None:
        """Take in the answers of a batch, n of them."""
        at = (self._seen + np.arange(len(exits))) % RECENT
        self.finished_s[at] = finished_s
        self.latency_ms[at] = latency_ms
        self.vanilla_ms[at] = vanilla_ms
        self.exits[at] = exits
        self.wrong[at] = wrong
        self._seen += len(exits)

    def rows(self, last: int = RECENT, since_s: float = -np.inf) -> NDArray[np.intp]:
        """Places of the last answers, oldest first, of those that finished after a time."""
        count = min(last, self._seen, RECENT)
        at = np.arange(self._seen - count, self._seen, dtype=np.intp) % RECENT
        kept: NDArray[np.intp] = at[self.finished_s[at] > since_s]
        return kept

    def rate(self, now_s: float, over_s: float) -> float:
        """Answers per second over the last seconds, or over as many of them as the ring holds."""
        rows = self.rows(since_s=now_s - over_s)
        if len(rows) == RECENT:
            over_s = max(now_s - float(self.finished_s[rows[0]]), 1e-3)
        return len(rows) / over_s
