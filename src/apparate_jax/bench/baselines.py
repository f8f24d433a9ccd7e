"""The systems that early answers are measured against: each a policy, and what it may see.

A table from names to policies. Each is a :class:`Controller`, a load policy and the recording that
it leaves by, so replay drives it, and the live engine does where no other recording is needed:
``service.apparate(controller=policy_of("branchynet", task).controller)``.

What is tuned once is tuned on a **sample**, the first tenth of the stream; what is measured is the
rest. ``-opt`` and ``uniform`` look at the stream itself: nobody can in service. ``oracle`` and
``two-layer`` are no policies; :mod:`apparate_jax.bench.compare` computes them.

References:
    BranchyNet (ICPR 2016), DeeBERT (ACL 2020), Tabi (EuroSys 2023), Apparate (SOSP 2024).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from apparate_jax.bench.one_time import past, plan_best, plan_each, plan_shared
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.replayed import policy as our_policy
from apparate_jax.bench.two_layer import Small
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import Controller, fixed
from apparate_jax.control.load import LoadPolicy, always, by_worth
from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError, DataError
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve.engine_config import EngineConfig

SAMPLE_FRAC = 0.1
"""Share of a stream, from its start, that one-time tuning sees."""


class Variant(NamedTuple):
    """One kind of ramps on a stream: a sample to tune on, and the stream."""

    sample: Recording
    stream: Recording


@dataclass(frozen=True, slots=True)
class Task:
    """What every system is given.

    Attributes:
        ours: Our ramps.
        control: Accuracy constraint, and settings of our controller.
        placement: Budgets of the ramps.
        heavy: DeeBERT's ramps on the same rows; ours stand in where there are none.
        small: A small model on the same rows, sample and stream; None without.
        seed: Of the uniform sample.
    """

    ours: Variant
    control: ControlConfig = field(default_factory=ControlConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    heavy: Variant | None = None
    small: tuple[Small, Small] | None = None
    seed: int = 0

    @property
    def eps(self) -> float:
        """Share of answers that may differ."""
        return self.control.max_disagreement


class Policy(NamedTuple):
    """How a system serves.

    Attributes:
        controller: Its decisions.
        recording: What its ramps say.
        load_policy: Which ramps a batch runs under load.
        defer: As the engine's setting; None for what the engine has.
    """

    controller: Controller
    recording: Recording
    load_policy: LoadPolicy = always
    defer: int | None = None

    def on(self, engine: EngineConfig) -> EngineConfig:
        """The engine's settings under this policy."""
        return engine if self.defer is None else replace(engine, defer=self.defer)


class System(NamedTuple):
    """A system of the table.

    Attributes:
        what: One line for people.
        make: Its policy; None for what is computed otherwise.
    """

    what: str
    make: Callable[[Task], Policy] | None


def _vanilla(task: Task) -> Policy:
    return Policy(fixed(ExitPlan()), task.ours.stream)


def _by_entropy(task: Task) -> Variant:
    """DeeBERT's ramps, which leave by entropy."""
    given = task.heavy or task.ours
    return Variant(*(one.with_criterion("entropy") for one in given))


def _our_ramps(task: Task) -> Variant:
    return task.ours


Plan = Callable[[Recording, tuple[int, ...], float], ExitPlan]


def _all_ramps(
    ramps: Callable[[Task], Variant], plan: Plan, *, hindsight: bool = False
) -> Callable[[Task], Policy]:
    """All ramps always on, with thresholds of the sample, or of the stream itself."""

    def make(task: Task) -> Policy:
        given = ramps(task)
        seen = given.stream if hindsight else given.sample
        return Policy(fixed(plan(seen, seen.ramps, task.eps)), given.stream)

    return make


def _initial_only(task: Task) -> Policy:
    sample, stream = task.ours
    return Policy(fixed(plan_each(sample, stream.profile.sites, task.eps)), stream)


def _uniform(task: Task) -> Policy:
    stream = task.ours.stream
    count = max(1, round(SAMPLE_FRAC * len(stream)))
    rows = np.random.default_rng(task.seed).choice(len(stream), count, replace=False)
    plan = plan_each(stream.reorder(np.sort(rows)), stream.profile.sites, task.eps)
    return Policy(fixed(plan), stream)


def _past(batches: int) -> Callable[[Task], Policy]:
    def make(task: Task) -> Policy:
        stream = task.ours.stream
        return Policy(past(stream, stream.profile.sites, task.eps, batches), stream)

    return make


def _apparate(
    load_policy: LoadPolicy = by_worth, defer: int | None = None, **changes: object
) -> Callable[[Task], Policy]:
    def make(task: Task) -> Policy:
        control = replace(task.control, **changes)  # type: ignore[arg-type]
        if defer is not None:
            control = EngineConfig(defer=defer).suited(control)
        stream = task.ours.stream
        return Policy(our_policy(stream, control, task.placement), stream, load_policy, defer)

    return make


SYSTEMS: dict[str, System] = {
    "vanilla": System("the original model", _vanilla),
    "branchynet": System(
        "all ramps, one threshold, tuned once", _all_ramps(_our_ramps, plan_shared)
    ),
    "branchynet+": System(
        "all ramps, a threshold each, tuned once", _all_ramps(_our_ramps, plan_each)
    ),
    "branchynet-opt": System(
        "all ramps, tuned on the test data", _all_ramps(_our_ramps, plan_best, hindsight=True)
    ),
    "deebert": System(
        "as branchynet, by entropy, heavier ramps", _all_ramps(_by_entropy, plan_shared)
    ),
    "deebert+": System("as branchynet+, by entropy", _all_ramps(_by_entropy, plan_each)),
    "deebert-opt": System(
        "as branchynet-opt, by entropy", _all_ramps(_by_entropy, plan_best, hindsight=True)
    ),
    "initial-only": System("our ramps of the start, tuned once", _initial_only),
    "uniform": System("the same, tuned on a tenth of the test data", _uniform),
    "past-20": System("tuned on the past 20 batches, no guard", _past(20)),
    "past-40": System("tuned on the past 40 batches, no guard", _past(40)),
    "past-80": System("tuned on the past 80 batches, no guard", _past(80)),
    "paper": System("Apparate's control, as the paper has it", _apparate(always, policy="paper")),
    "artifact": System(
        "the same with the public code's constants", _apparate(always, policy="artifact")
    ),
    "two-layer": System("a small model where it is sure", None),
    "apparate": System("early answers", _apparate()),
    "no-adjustment": System("its ramps stay as at the start", _apparate(policy="fixed")),
    "no-guard": System("nothing is promised", _apparate(promise="none")),
    "no-shadow": System("no shadow batches", _apparate(shadow_every=0)),
    "greedy": System("the paper's threshold search", _apparate(method="greedy")),
    "always-on": System("ramps run whatever the load", _apparate(always)),
    "no-deferral": System("answered batches run on at once", _apparate(defer=0)),
    "oracle": System("leaves at the earliest right ramp, free of cost", None),
}
"""Every system by its name, in the order of tables."""

DEFAULT = tuple(name for name in SYSTEMS if name != "two-layer")


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if all of them are known.

    Raises:
        ConfigError: One is not.
    """
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown or not names:
        raise ConfigError(f"systems {unknown} are unknown, expected some of {', '.join(SYSTEMS)}")
    return tuple(names)


def policy_of(name: str, task: Task) -> Policy:
    """The policy of a system.

    Raises:
        ConfigError: There is no such system, or it is none that a controller drives.
    """
    check_names([name])
    make = SYSTEMS[name].make
    if make is None:
        raise ConfigError(f"{name} has no controller: compare it on a recording")
    return make(task)


def criterion_of(name: str) -> str:
    """What answers of a system leave by: ``"entropy"`` for DeeBERT's, else ``"error"``."""
    return "entropy" if name.startswith("deebert") else "error"


def task_of(
    recording: Recording,
    control: ControlConfig | None = None,
    placement: PlacementConfig | None = None,
    *,
    heavy: Recording | None = None,
    small: Small | None = None,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> Task:
    """A task from a recording: its first rows to tune on, the others to be measured.

    Args:
        recording: Of our ramps.
        control: Settings.
        placement: Budgets.
        heavy: DeeBERT's ramps on the same rows.
        small: A small model on the same rows.
        rows: The stream as rows of the recording; those behind the sample if None.
        sample: Rows to tune on, from the start; a tenth if None.
        seed: Of the uniform sample.

    Raises:
        DataError: The other recordings are not of the same rows.
    """
    count = max(1, round(SAMPLE_FRAC * len(recording))) if sample is None else sample
    order = np.arange(count, len(recording)) if rows is None else rows
    first = np.arange(count)

    def both(one: Recording) -> Variant:
        stream = one.slice(count, len(one)) if rows is None else one.reorder(order)
        return Variant(one.slice(0, count), stream)

    if heavy is not None and not np.array_equal(
        heavy.final_predictions, recording.final_predictions
    ):
        raise DataError(
            "the recording of heavier ramps is of other rows, or of another model: record both "
            "on the same data"
        )
    return Task(
        both(recording),
        control or ControlConfig(),
        placement or PlacementConfig(),
        None if heavy is None else both(heavy),
        None if small is None else (small.rows(first), small.rows(order)),
        seed,
    )
