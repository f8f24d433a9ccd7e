"""Which ramp went bad: a CUSUM of wrong exits per ramp.

Every exit at a ramp moves its score by the log-likelihood ratio of a wrong share ``q1`` that is
:data:`WORSE` times the planned one against the planned one, ``q0``; below 0 it starts anew::

    S <- max(0, S + log(q1 / q0))                 after a wrong exit
    S <- max(0, S + log((1 - q1) / (1 - q0)))     after a right one

The ramp violates its plan once ``S`` passes :data:`ALARM`. Of all rules with as few false alarms
this one is the quickest in the worst case (Page, 1954, Biometrika 41; Moustakides, 1986, Annals of
Statistics 14). What was seen since ``S`` last left 0 is what the ramp is like now.
"""

import math
from typing import NamedTuple

WORSE = 4.0
ALARM = 8.0
LEAST_SHARE = 0.01
"""A planned share below this is taken for it: five wrong exits in a row are no alarm, six are."""
MOST_SHARE = 0.9


class Drift(NamedTuple):
    """Scores of R ramps.

    Attributes:
        up: Step after a wrong exit, per ramp.
        down: Step after a right one, per ramp; negative.
        scores: S, per ramp.
        since: Samples seen since the score last left 0, per ramp.
    """

    up: tuple[float, ...]
    down: tuple[float, ...]
    scores: tuple[float, ...]
    since: tuple[int, ...]


def start(shares: tuple[float, ...]) -> Drift:
    """Scores of 0 for ramps with these planned shares of wrong exits."""
    planned = [min(max(share, LEAST_SHARE), MOST_SHARE / 2) for share in shares]
    worse = [min(WORSE * share, MOST_SHARE) for share in planned]
    up = tuple(math.log(q1 / q0) for q0, q1 in zip(planned, worse, strict=True))
    down = tuple(math.log((1 - q1) / (1 - q0)) for q0, q1 in zip(planned, worse, strict=True))
    return Drift(up, down, (0.0,) * len(shares), (0,) * len(shares))


def replan(drift: Drift, shares: tuple[float, ...]) -> Drift:
    """The same scores, with steps for other planned shares."""
    return start(shares)._replace(scores=drift.scores, since=drift.since)


def observe(drift: Drift, exits: list[int], right: list[bool], samples: int) -> Drift:
    """Take in the exits of a batch.

    Args:
        drift: Scores before.
        exits: Ramp of each early answer, in the order in which they left.
        right: Whether each was the original's.
        samples: Inputs of the batch, those that did not leave early included.
    """
    scores, since = list(drift.scores), list(drift.since)
    for ramp, ok in zip(exits, right, strict=True):
        step = drift.down[ramp] if ok else drift.up[ramp]
        scores[ramp] = max(0.0, scores[ramp] + step)
    for ramp, score in enumerate(scores):
        since[ramp] = since[ramp] + samples if score > 0.0 else 0
    return drift._replace(scores=tuple(scores), since=tuple(since))


def alarms(drift: Drift) -> tuple[int, ...]:
    """Positions of the ramps that went bad."""
    return tuple(ramp for ramp, score in enumerate(drift.scores) if score > ALARM)


def reset(drift: Drift, ramps: tuple[int, ...]) -> Drift:
    """Scores of 0 for these ramps."""
    scores = tuple(0.0 if r in ramps else s for r, s in enumerate(drift.scores))
    since = tuple(0 if r in ramps else n for r, n in enumerate(drift.since))
    return drift._replace(scores=scores, since=since)
