"""Streams made of recordings: independent, slowly drifting, or shifting at once.

Each is an order of rows, some of them more than once, so that a stream may be as long as wanted.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.recording import Recording
from apparate_jax.errors import ConfigError

Order = NDArray[np.int64]


def _recorded(groups: list[Order], count: int, rng: np.random.Generator) -> Order:
    """As recorded, from the start again when it ends."""
    del rng
    return np.resize(np.concatenate(groups), count)


def _independent(groups: list[Order], count: int, rng: np.random.Generator) -> Order:
    """Drawn at random from all rows, with replacement."""
    return rng.choice(np.concatenate(groups), count)


def _drift(groups: list[Order], count: int, rng: np.random.Generator) -> Order:
    """Slowly from each group to the next: their shares change by and by."""
    place = np.linspace(0, len(groups) - 1, count)
    group = np.minimum(place.astype(int) + (rng.random(count) < place % 1), len(groups) - 1)
    return _drawn(groups, group, rng)


def _shift(groups: list[Order], count: int, rng: np.random.Generator) -> Order:
    """One group after the other, each for an equal time."""
    return _drawn(groups, np.arange(count) * len(groups) // count, rng)


def _drawn(groups: list[Order], group: Order, rng: np.random.Generator) -> Order:
    rows = np.empty(len(group), np.int64)
    for index, members in enumerate(groups):
        there = group == index
        rows[there] = rng.choice(members, int(there.sum()))
    return rows


STREAMS: dict[str, Callable[[list[Order], int, np.random.Generator], Order]] = {
    "recorded": _recorded,
    "independent": _independent,
    "drift": _drift,
    "shift": _shift,
}


def groups_of(recording: Recording, first: int = 0) -> list[Order]:
    """The data sets of a recording as rows, from ``first`` on; one alone is cut in two.

    Of one alone the half whose ramps are surer, by their mean error, comes before the other.
    """
    starts = [part.first for part in recording.parts]
    ends = [*starts[1:], len(recording)]
    spans = [np.arange(max(a, first), b) for a, b in zip(starts, ends, strict=True) if b > first]
    if len(spans) > 1:
        return spans
    (rows,) = spans
    means = np.nan_to_num(recording.errors[rows], nan=1.0).mean(axis=1)
    easy_first = rows[np.argsort(means, kind="stable")]
    return [half for half in np.array_split(easy_first, 2) if len(half)]


def order(kind: str, recording: Recording, count: int, first: int = 0, seed: int = 0) -> Order:
    """Rows of a stream.

    Args:
        kind: One of :data:`STREAMS`.
        recording: What it is made of; recordings that follow one another are its groups.
        count: How many rows.
        first: Rows before this one are left out (thresholds were tuned on them).
        seed: Of what is drawn.

    Returns:
        i64[count].

    Raises:
        ConfigError: An unknown kind, or nothing to draw from.
    """
    if kind not in STREAMS:
        raise ConfigError(f"the stream is {kind!r}, expected one of {list(STREAMS)}")
    if count < 1 or not 0 <= first < len(recording):
        raise ConfigError(
            f"{count} rows from row {first} on of a recording of {len(recording)}: expected at "
            "least one, and some to draw from"
        )
    groups = [np.arange(first, len(recording))]
    if kind in ("drift", "shift"):
        groups = groups_of(recording, first)
    return STREAMS[kind](groups, count, np.random.default_rng(seed))
