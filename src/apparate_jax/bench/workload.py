"""When requests arrive: fixed rate, Poisson, or the times of a trace. Seeded and open loop.

Open loop means that a request arrives when it arrives, whether or not the server has kept up:
latency then includes the queueing that real users see.
"""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import ConfigError, DataError

ARRIVALS = ("poisson", "fixed")
"""Kinds of drawn arrivals."""

Times = NDArray[np.float64]


def check_load(load_frac: float, rate_rps: float | None) -> None:
    """See that arrivals can come at this rate.

    Raises:
        ConfigError: The share is out of range, or the rate not positive.
    """
    if not 0.0 < load_frac <= 4.0:
        raise ConfigError(f"load_frac is {load_frac}, expected above 0 and at most 4")
    if rate_rps is not None and not rate_rps > 0:
        raise ConfigError(f"rate_rps is {rate_rps}, expected a number above 0, or none")


def load_of(load_frac: float, rate_rps: float | None) -> str:
    """How fast requests come, in words.

    >>> load_of(0.4, None), load_of(0.4, 20.0)
    ('at 40% load', 'at 20 requests/s')
    """
    return f"at {load_frac:.0%} load" if rate_rps is None else f"at {rate_rps:g} requests/s"


def arrivals(kind: str, rate_rps: float, count: int, seed: int = 0) -> Times:
    """Arrival times of ``count`` requests.

    Args:
        kind: ``"poisson"`` (independent, exponential gaps) or ``"fixed"`` (equal gaps).
        rate_rps: Mean arrivals per second.
        count: How many.
        seed: Of the random gaps.

    Returns:
        f64[count], seconds from the start, ascending.

    Raises:
        ConfigError: Unknown kind, or a rate or count that is not positive.
    """
    if rate_rps <= 0 or count < 1:
        raise ConfigError(f"rate is {rate_rps} and count {count}, expected both above 0")
    if kind == "fixed":
        return np.arange(count) / rate_rps
    if kind == "poisson":
        gaps = np.random.default_rng(seed).exponential(1.0 / rate_rps, count)
        return np.cumsum(gaps)
    raise ConfigError(f"arrivals are {kind!r}, expected 'poisson', 'fixed' or a trace file")


def read_trace(path: Path, column: str | None = None) -> Times:
    """Arrival times from a CSV file, as seconds from the first.

    Args:
        path: CSV with a header; times are numbers (seconds) or ISO timestamps.
        column: Column to read; the first one unless given.

    Returns:
        f64[n], ascending, the first is 0.

    Raises:
        DataError: No such file or column, no rows, or a value that is no time.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the trace {path}: {error}") from error
    if len(rows) < 2:
        raise DataError(f"the trace {path} has no rows: expected a header and a time per row")
    header = rows[0]
    if column is not None and column not in header:
        raise DataError(f"the trace {path} has columns {header}, expected {column!r} among them")
    index = header.index(column) if column is not None else 0
    kept = [row for row in rows[1:] if row]
    if not kept or min(map(len, kept)) <= index:
        raise DataError(
            f"the trace {path} has no rows, or one without a value for {header[index]!r}"
        )
    values = [row[index] for row in kept]
    return _as_seconds(values, path)


def _as_seconds(values: Sequence[str], path: Path) -> Times:
    try:
        seconds = np.asarray(values, np.float64)
    except ValueError:
        try:
            seconds = np.asarray([_stamp(value) for value in values])
        except ValueError as error:
            raise DataError(
                f"the trace {path} starts with {values[0]!r}, expected seconds or ISO timestamps"
            ) from error
    if not np.isfinite(seconds).all():
        raise DataError(f"the trace {path} has times that are not finite")
    ordered: Times = np.sort(seconds - seconds.min())
    return ordered


def _stamp(text: str) -> float:
    """Seconds since 1970 of an ISO timestamp, which is in UTC if it does not say."""
    stamp = datetime.fromisoformat(text.strip())
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


def from_counts(counts: Sequence[int], step_s: float, seed: int = 0) -> Times:
    """Arrival times from how many there were in each interval, at random within it.

    Args:
        counts: Arrivals of each interval, one after the other.
        step_s: Length of an interval.
        seed: Of the times within the intervals.

    Returns:
        f64[sum(counts)], ascending, the first is 0.

    Raises:
        DataError: A count below 0, or none above it.

    >>> from_counts([2, 0, 1], 60.0).shape
    (3,)
    """
    found = np.asarray(counts, np.int64)
    if found.ndim != 1 or found.min(initial=0) < 0 or found.sum() < 1:
        raise DataError(
            f"{len(counts)} counts, expected none below 0 and some above: arrivals per interval"
        )
    starts = np.repeat(np.arange(len(found)), found)
    within = np.random.default_rng(seed).random(len(starts))
    ordered = np.sort((starts + within) * step_s)
    times: Times = ordered - ordered[0]
    return times


def stretch(times: Times, first: int, count: int) -> Times:
    """Arrivals ``first`` to ``first + count`` of a trace that begins again when it ends.

    Args:
        times: f64[n], ascending, in seconds.
        first: Number of the first one.
        count: How many.

    Returns:
        f64[count], ascending, the first is 0.
    """
    # From the last arrival to the first of the next time around: a gap as long as the mean.
    length = times[-1] - times[0] + (times[-1] - times[0]) / max(1, len(times) - 1)
    around, at = np.divmod(np.arange(first, first + count), len(times))
    chosen: Times = times[at] + around * length
    chosen -= chosen[0]
    return chosen


def at_rate(times: Times, rate_rps: float) -> Times:
    """The same arrivals, stretched or squeezed to a mean rate."""
    if len(times) < 2 or times[-1] <= 0:
        raise DataError("a trace needs at least two different times to be brought to a rate")
    scaled: Times = times * ((len(times) - 1) / times[-1] / rate_rps)
    return scaled
