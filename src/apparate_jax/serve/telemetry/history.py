"""A model's last minutes, a sample a second: what charts over time are drawn from.

Samples are taken when a batch completes or somebody asks, so a model that nobody uses and nobody
watches costs nothing. Every sample is of the seconds before it, since a single one is too few
answers for percentiles. Memory is constant.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import FINAL, ExitPlan
from apparate_jax.serve.telemetry.counts import SPAN, Recent

SAMPLES = 900
"""Samples that are kept: 15 minutes of one a second."""
EVERY_S = 1.0
"""Time between samples, at least."""
OVER_S = 5.0
"""What a sample's throughput, percentiles and exits are taken over."""

_PERCENTILES = (50, 95)
_LINES = ("throughput_rps", "p50_ms", "p95_ms", "vanilla_p50_ms", "vanilla_p95_ms")
_DIGITS = {"at_s": 1, "throughput_rps": 1, "disagreement": 5, "queue": 0}


class History:
    """A ring of samples. Not thread-safe: its owner's lock guards it."""

    def __init__(self, site_names: Sequence[str]) -> None:
        """No sample yet.

        Args:
            site_names: Of all sites of the model.
        """
        self._names = (*site_names, FINAL)
        self._columns = {
            name: np.full(SAMPLES, np.nan) for name in ("at_s", *_LINES, "disagreement", "queue")
        }
        self._exits = np.full((SAMPLES, len(self._names)), np.nan, np.float32)
        self._thresholds = np.full((SAMPLES, len(site_names)), np.nan, np.float32)
        self._taken = 0
        self._last_s = -np.inf
        self._epoch_s = 0.0  # of the engine's clock, in seconds since the epoch

    def due(self, now_s: float) -> bool:
        """Whether a sample is to be taken."""
        return now_s - self._last_s >= EVERY_S

    def sample(
        self, now_s: float, at_s: float, recent: Recent, plan: ExitPlan, waiting: int
    ) -> None:
        """Take a sample.

        Args:
            now_s: Seconds of the engine's clock.
            at_s: The same moment, in seconds since the epoch. The first sample's counts: from
                there on time is the engine's, which never goes back.
            recent: The last answers.
            plan: The plan in force.
            waiting: Inputs that wait for a batch.
        """
        at = self._taken % SAMPLES
        rows = recent.rows(since_s=now_s - OVER_S)
        span = recent.rows(SPAN)
        times = (recent.latency_ms[rows], recent.vanilla_ms[rows])
        found = [v for t in times for v in _percentiles(t)]
        row = dict(zip(_LINES, (recent.rate(now_s, OVER_S), *found), strict=True))
        if not self._taken:
            self._epoch_s = at_s - now_s
        row |= {"at_s": self._epoch_s + now_s, "queue": waiting}
        row["disagreement"] = float(recent.wrong[span].mean()) if len(span) else np.nan
        for name, column in self._columns.items():
            column[at] = row[name]
        # site -1, the original model, counts into the last place
        counts = np.bincount(recent.exits[rows] % len(self._names), minlength=len(self._names))
        self._exits[at] = counts / len(rows) if len(rows) else np.nan
        self._thresholds[at] = np.nan
        self._thresholds[at, list(plan.sites)] = plan.thresholds
        self._taken += 1
        self._last_s = now_s

    def last(self, count: int = SAMPLES) -> dict[str, Any]:
        """The last samples as JSON values: columns by name, oldest first, null where unknown.

        ``exits`` (shares) and ``thresholds`` have a column for each ramp that was active or was
        left at in that time; ``exits`` also one for the original model.

        Args:
            count: How many of them, at most.
        """
        count = min(count, self._taken, SAMPLES)
        at = np.arange(self._taken - count, self._taken) % SAMPLES
        exits, thresholds = self._exits[at], self._thresholds[at]
        ran = ~np.isnan(thresholds).all(0) | (np.nan_to_num(exits[:, :-1]) > 0).any(0)
        ramps = np.flatnonzero(ran).tolist()
        columns = {name: _values(c[at], _DIGITS.get(name, 3)) for name, c in self._columns.items()}
        return {
            **columns,
            "exits": self._named(exits, [*ramps, len(self._names) - 1]),
            "thresholds": self._named(thresholds, ramps),
        }

    def _named(self, table: NDArray[np.float32], sites: Sequence[int]) -> Mapping[str, Any]:
        return {self._names[site]: _values(table[:, site], 4) for site in sites}


def _percentiles(values: NDArray[np.float64]) -> list[float]:
    if not len(values):
        return [np.nan] * len(_PERCENTILES)
    found: list[float] = np.percentile(values, _PERCENTILES).tolist()
    return found


def _values(column: NDArray[Any], digits: int) -> list[float | None]:
    rounded = np.round(column.astype(np.float64), digits).tolist()
    return [None if value != value else value for value in rounded]
