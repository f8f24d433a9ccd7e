"""The guard: holds the accuracy constraint on the full feedback, whatever the tuner does.

Every input runs to its end, so every early answer is checked a little later. With ``n`` checked
answers, ``w`` of them wrong, and a constraint of ``eps``, the **credit** is ``A(n) - w`` where::

    A(n) = eps (n + 512 max(0, 1 - n / 2048))

that is ``eps n`` and a loan of 512 answers' worth at the start, repaid by the 2,048th.

**The cap** makes it certain: an answer leaves early only while the early answers that are not yet
checked, itself included, are at most the credit. So if all of them were wrong, ``w <= A(n)`` would
still hold; ``A`` never falls; hence at every moment, for any sequence of inputs, however chosen, at
most ``A(n)`` answers were wrong: at most ``eps n`` from the 2,048th on. No assumption is made.

**The level** makes it efficient: thresholds are tuned for several budgets, a ladder from nothing to
more than ``eps``, and the level says which of them is in force::

    level = BASE + GAIN (credit - reserve) / (512 eps)

the error-integrating rule of online conformal control with a saturated integrator (Angelopoulos,
Candes and Tibshirani, 2023, arXiv 2307.16895; Gibbs and Candes, 2021, arXiv 2106.00170). The
reserve keeps as much credit as early answers are usually under way, those of a few batches where
answered ones let others go first, so that the cap rarely binds: where it does, batches that were
put off have to be checked before the next one may leave early.

The promise ``window`` looks at the wrong answers among the last 512 as well: the level falls with
what is left of a window's quota. Once more than :data:`TIGHT` of all windows were above the
constraint, nothing exits without quota left, and from :data:`STRICT` on the cap covers the window
as well: then not one more window can rise above, whatever comes, so that in the long run no more
than that share is, and 512 windows.

Sharp edges: an answer that cannot be checked (the original's is not finite) counts as wrong. The
order of answers is the order in which batches complete.
"""

import math
from typing import NamedTuple

from apparate_jax.control.config import Promise

SPAN = 512
"""Answers of the window that a promise is about, and that the loan is worth."""
REPAID = 2048
"""Answers after which the loan is repaid."""
BASE = 0.75
GAIN = 0.25
RESERVE = 1.2
"""Credit kept beside what is under way, in quotas of a window."""
WINDOW_BASE = 0.75
SLACK = 0.8
"""How far below its quota a window may run before nothing exits, in quotas."""
TIGHT = 0.035
"""Share of windows above the constraint beyond which none may run below its quota."""
STRICT = 0.037
"""Share of windows above the constraint beyond which the cap covers windows too."""
FORGET = 0.98
"""Decay of the largest number of answers under way, per batch."""


class Guard(NamedTuple):
    """What the guard remembers.

    Attributes:
        eps: Share of answers that may be wrong.
        promise: What is held.
        answers: Checked answers.
        wrong: Wrong ones among them, those that cannot be checked included.
        exits: Early ones among them.
        batches: Batches whose early answers are unchecked at a time, usually.
        under_way: Usual largest number of early answers that a batch adds to the unchecked ones.
        recent: Positions of the wrong answers among the last :data:`SPAN`, ascending.
        above: Whole windows that ended above the constraint.
    """

    eps: float
    promise: Promise
    batches: int = 1
    answers: int = 0
    wrong: int = 0
    exits: int = 0
    under_way: float = 0.0
    recent: tuple[int, ...] = ()
    above: int = 0


def observe(guard: Guard, samples: int, exits: int, wrong: list[int]) -> Guard:
    """Take in a checked batch.

    Args:
        guard: What is remembered.
        samples: Answers of the batch.
        exits: Early ones among them.
        wrong: Rows of the wrong ones, ascending.
    """
    first = guard.answers
    answers = first + samples
    under_way = max(FORGET * guard.under_way, float(exits))
    if not wrong and (not guard.recent or len(guard.recent) <= _quota(guard)):
        recent = guard.recent
        if recent and recent[0] <= answers - SPAN:
            recent = tuple(at for at in recent if at > answers - SPAN)
        return guard._replace(
            answers=answers, exits=guard.exits + exits, under_way=under_way, recent=recent
        )
    found = guard.recent + tuple(first + row for row in wrong)
    above = guard.above
    for last in range(max(first, SPAN - 1), answers):
        above += sum(last - SPAN < at <= last for at in found) > _quota(guard)
    return guard._replace(
        answers=answers,
        wrong=guard.wrong + len(wrong),
        exits=guard.exits + exits,
        under_way=under_way,
        recent=tuple(at for at in found if at > answers - SPAN),
        above=above,
    )


def allowed(guard: Guard) -> float:
    """Wrong answers that may have been given after the checked ones: A(n)."""
    loan = SPAN * max(0.0, 1.0 - guard.answers / REPAID)
    return guard.eps * (guard.answers + loan)


def exit_cap(guard: Guard) -> int | None:
    """How many early answers may have left since the start; None without a promise."""
    if guard.promise == "none":
        return None
    credit = allowed(guard) - guard.wrong
    if _above(guard, STRICT):
        credit = min(credit, _quota(guard) - len(guard.recent))
    return guard.exits + max(0, math.floor(credit + 1e-9))


def level(guard: Guard) -> float:
    """The rate to tune for, as a share of the constraint; 0 is nothing exits."""
    if guard.promise == "none":
        return 1.0
    quota = _quota(guard)
    if quota <= 0.0:
        return 0.0
    reserve = RESERVE * quota + guard.batches * guard.under_way
    by_credit = BASE + GAIN * (allowed(guard) - guard.wrong - reserve) / quota
    if guard.promise == "long-run":
        return max(0.0, by_credit)
    slack = 0.0 if _above(guard, TIGHT) else SLACK * quota
    room = quota - len(guard.recent)
    by_window = WINDOW_BASE * (room + slack) / (quota + slack)
    return max(0.0, min(by_credit, by_window))


def _quota(guard: Guard) -> float:
    return guard.eps * SPAN


def _above(guard: Guard, share: float) -> bool:
    """Whether more than a share of the windows were above the constraint, where that matters."""
    return guard.promise == "window" and guard.above > share * max(guard.answers, REPAID)
