"""Who leaves where in a recorded stream, for many requests at a time.

A replay asks for a few requests per batch, thousands of times under one plan. So what a set of
ramps says, and where its thresholds let requests out, is looked up for a stretch of requests at
once and then only sliced.
"""

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.recording import Recording
from apparate_jax.control.interface import Shadow
from apparate_jax.control.thresholds import first_exits
from apparate_jax.errors import ConfigError

STRETCH = 512
"""Requests that are looked up at a time."""

Sites = tuple[int, ...]


class Stretch:
    """What R active ramps say about the requests ``first`` to ``stop``, m of them.

    Attributes:
        first: The first request.
        stop: The one after the last.
        errors: f32[m, R].
        agrees: bool[m, R].
    """

    __slots__ = ("_before", "_exits", "_thresholds", "agrees", "errors", "first", "stop")

    def __init__(
        self, first: int, stop: int, errors: NDArray[np.float32], agrees: NDArray[np.bool_]
    ) -> None:
        self.first = first
        self.stop = stop
        self.errors = errors
        self.agrees = agrees
        self._thresholds: tuple[float, ...] | None = None
        self._exits = np.empty(0, np.int32)
        self._before: list[int] = []

    def rows_of(self, first: int, stop: int) -> slice:
        """Rows of these requests in the arrays."""
        return slice(first - self.first, stop - self.first)

    def exits(self, thresholds: tuple[float, ...]) -> NDArray[np.int32]:
        """i32[m]: position of the ramp where each request leaves, R at the end."""
        if thresholds is not self._thresholds:
            if thresholds != self._thresholds:
                self._exits = first_exits(self.errors, thresholds).astype(np.int32)
                early = np.cumsum(self._exits < len(thresholds))
                self._before = [0, *early.tolist()]
            self._thresholds = thresholds
        return self._exits

    def early(self, rows: slice) -> int:
        """How many of these rows leave early, with the thresholds that were asked for last."""
        before = self._before
        count: int = before[rows.stop] - before[rows.start]
        return count


class Stream:
    """The requests of a replay: request ``i`` brings row ``first_row + i``, in a circle."""

    def __init__(self, recording: Recording, first_row: int = 0) -> None:
        """Make a stream.

        Args:
            recording: What ramps and model answer.
            first_row: Row of the first request, modulo their number.
        """
        self._recording = recording
        self._first = first_row
        self._agrees = recording.agrees
        self._columns = {site: column for column, site in enumerate(recording.ramps)}
        self._stretches: dict[Sites, Stretch] = {}

    @property
    def depths(self) -> tuple[float, ...]:
        """Of all sites."""
        return self._recording.depths

    @property
    def end(self) -> int:
        """What stands for the end of the model where a site is named: the number of sites."""
        return len(self._recording.site_names)

    def stretch(self, sites: Sites, first: int, stop: int) -> Stretch:
        """A stretch that holds the requests ``first`` to ``stop``.

        Raises:
            ConfigError: A site without a ramp.
        """
        known = self._stretches.get(sites)
        if known is None or first < known.first or stop > known.stop:
            known = self._look_up(sites, first, max(stop, first + STRETCH))
            self._stretches[sites] = known
        return known

    def shadow(self, first: int, stop: int) -> Shadow:
        """What all ramps say about the requests ``first`` to ``stop``."""
        rows = self._rows(first, stop)
        return Shadow(self._recording.ramps, self._recording.errors[rows], self._agrees[rows])

    def right(self, left_at: NDArray[np.int32]) -> NDArray[np.bool_]:
        """bool[n]: whether request ``i``, which left at this site, got the original's answer."""
        right = np.ones(len(left_at), np.bool_)
        rows = self._rows(0, len(left_at))
        for site, column in self._columns.items():
            there = left_at == site
            right[there] = self._agrees[rows[there], column]
        return right

    def _look_up(self, sites: Sites, first: int, stop: int) -> Stretch:
        unknown = [site for site in sites if site not in self._columns]
        if unknown:
            raise ConfigError(
                f"the plan has sites {unknown}, but ramps were recorded at {[*self._columns]}: "
                "choose among these"
            )
        rows = self._rows(first, stop)
        columns = [self._columns[site] for site in sites]
        cells = np.ix_(rows, np.asarray(columns, np.int64))
        return Stretch(first, stop, self._recording.errors[cells], self._agrees[cells])

    def _rows(self, first: int, stop: int) -> NDArray[np.int64]:
        return (self._first + np.arange(first, stop)) % len(self._recording)
