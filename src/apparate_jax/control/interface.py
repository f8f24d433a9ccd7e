"""What a policy is: from the feedback of completed batches to the plan in force.

``init() -> State`` and ``update(state, observation) -> (plan, state, info)``: no clock, no threads,
no randomness. The live engine, replay, the tests and every baseline drive this one interface.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.control.thresholds import Tuning
from apparate_jax.core import BatchRecord, ExitPlan


class Shadow(NamedTuple):
    """What all trained ramps would have answered to a batch of ``n`` inputs.

    Attributes:
        sites: Sites with a trained ramp, S of them, ascending.
        errors: f32[n, S].
        agrees: bool[n, S].
    """

    sites: tuple[int, ...]
    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]


class Observation(NamedTuple):
    """Feedback of one completed batch of ``n`` inputs.

    Attributes:
        sites: The R active sites that it ran with.
        errors: f32[n, R], 0..1, or NaN where a ramp has no answer.
        agrees: bool[n, R], whether the ramp's answer is the original's.
        exits: i32[n], position of the ramp that answered, R for the original model.
        shape: Padded batch size.
        lost: Further early answers of it that cannot be checked: they count as wrong.
        shadow: Of a shadow batch.
    """

    sites: tuple[int, ...]
    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    exits: NDArray[np.int32]
    shape: int = 1
    lost: int = 0
    shadow: Shadow | None = None

    @staticmethod
    def of(record: BatchRecord) -> "Observation":
        """What a batch's record says."""
        return Observation(
            record.sites,
            record.errors,
            record.agrees,
            record.exits,
            record.shape,
            record.lost,
            _shadow(record),
        )


class Info(NamedTuple):
    """What a decision rests on; for people and metrics, never fed back.

    Attributes:
        tuning: The tuning that was done, if any: of the thresholds in force.
        stopped: Positions of ramps that stopped exiting because of wrong answers.
        events: What happened, in words; sites stand in them as ``site 3`` or ``sites [1, 3]``, and
            :func:`name_sites` puts their names there.
        took_s: How long the decision took, if whoever asked for it looked at a clock.
    """

    tuning: Tuning | None = None
    stopped: tuple[int, ...] = ()
    events: tuple[str, ...] = ()
    took_s: float = 0.0


class Controller(NamedTuple):
    """A policy.

    Attributes:
        init: ``init() -> State``.
        update: ``update(state, observation) -> (plan, state, info)``.
        plan: ``plan(state) -> ExitPlan`` in force.
        resume: ``resume(state) -> State``: a state that was saved, for an engine that begins anew.
    """

    init: Callable[[], Any]
    update: Callable[[Any, Observation], tuple[ExitPlan, Any, Info]]
    plan: Callable[[Any], ExitPlan]
    resume: Callable[[Any], Any] = lambda state: state


def fixed(plan: ExitPlan) -> Controller:
    """The policy that never changes its plan; the original model where it has no sites."""
    return Controller(lambda: None, lambda state, _: (plan, state, Info()), lambda _: plan)


def name_sites(event: str, names: Sequence[str]) -> str:
    """An event with the names of its sites, for people.

    Args:
        event: One of :class:`Info`.
        names: Of all sites of the model.

    >>> name_sites("ramps at sites [0, 2] give way to sites []", ["stem", "block.0", "block.1"])
    'ramps stem, block.1 give way to none'
    """

    def named(found: re.Match[str]) -> str:
        return ", ".join(names[int(site)] for site in re.findall(r"\d+", found[0])) or "none"

    return re.sub(r"(?:at )?(?:sites \[[\d, ]*\]|site \d+)", named, event)


def _shadow(record: BatchRecord) -> Shadow | None:
    given = record.shadow
    if given is None:
        return None
    return Shadow(given.sites, given.errors, given.predictions == record.final_predictions[:, None])
