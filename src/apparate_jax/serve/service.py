"""A checkpoint brought to service: programs warmed, latency measured, ramps within their budget.

The ramp budget is checked against measured latency: if the placed ramps slow an input that never
exits by more than the budget in the middle one of three measurements, the best set of one fewer
takes their place, until they fit.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import numpy as np

from apparate_jax.checkpoint import Checkpoint, check_sites
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.controller import make_controller
from apparate_jax.control.initial import initial_sites
from apparate_jax.control.interface import Controller
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import LoadPolicy, by_worth
from apparate_jax.core import BatchRecord, ExitPlan, Profile
from apparate_jax.errors import ConfigError
from apparate_jax.graph import trace
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.ramps.train import Validation
from apparate_jax.serve.engine import Engine, EngineConfig, Observer
from apparate_jax.serve.feedback import Feedback, OnDecision
from apparate_jax.serve.profile import measure, measure_again
from apparate_jax.serve.programs import Programs, Progress
from apparate_jax.serve.state_store import StateStore

logger = logging.getLogger(__name__)

OnPhase = Callable[[str], Progress]
"""``on_phase(what) -> progress``: called as each phase of bringing a model up begins."""


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Everything that decides how a checkpoint is served.

    Attributes:
        batch_sizes: Batch shapes that are compiled and warmed.
        engine: Limits of the engine, and how batches are formed.
        control: Settings of the controller.
        placement: Budgets of the ramps.
        criterion: What answers leave by; ``"entropy"`` for comparisons only, since our controller
            starts from the errors of held-out samples.
        device: Where the model runs, an index of ``jax.devices()``; the first if None.
    """

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    engine: EngineConfig = field(default_factory=EngineConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    criterion: str = "error"
    device: int | None = None


class Service(NamedTuple):
    """Warmed programs with the measured profile of the ramps that are active at the start.

    Attributes:
        programs: Compiled programs.
        profile: Of the active ramps, on this device.
        config: What it was made with.
        validation: What all ramps said about the samples that their training held out.
    """

    programs: Programs
    profile: Profile
    config: ServiceConfig
    validation: Validation | None = None

    def vanilla(self, observer: Observer | None = None) -> Engine:
        """The original model's engine: one program, nothing exits."""
        latency = LatencyModel(self.profile)
        return Engine(self.programs, self.config.engine, latency=latency, observer=observer)

    def controller(self) -> Controller:
        """The policy that the configuration asks for."""
        return make_controller(
            self.config.engine.suited(self.config.control),
            self.profile.sites,
            LatencyModel(self.profile),
            validation=self.validation,
            placement=self.config.placement,
            num_bytes={site: ramp.num_bytes for site, ramp in self.programs.ramps.items()},
        )

    def apparate(
        self,
        observer: Observer | None = None,
        on_decision: OnDecision | None = None,
        controller: Controller | None = None,
        load_policy: LoadPolicy = by_worth,
        store: StateStore | None = None,
    ) -> tuple[Engine, Feedback]:
        """An engine with early answers, and the feedback that tunes it (attach it after start).

        Args:
            observer: Called with each completed batch's record.
            on_decision: Called with what the controller decides.
            controller: Another policy than the configured one.
            load_policy: Which ramps a batch runs.
            store: Where the controller's state is kept, and taken up again from.
        """
        feedback = Feedback(controller or self.controller(), on_decision, store)

        def observe(record: BatchRecord) -> None:
            feedback.observe(record)
            if observer is not None:
                observer(record)

        plan = ExitPlan.closed(feedback.plan.sites)
        self.programs.warm_merged(plan.sites)
        engine = Engine(
            self.programs,
            self.config.engine,
            plan=plan,
            load_policy=load_policy,
            latency=LatencyModel(self.profile),
            observer=observe,
        )
        return engine, feedback


def prepare(
    checkpoint: Checkpoint,
    config: ServiceConfig | None = None,
    progress: OnPhase | None = None,
    *,
    predecessor: Service | None = None,
    began: Callable[[Programs], None] | None = None,
) -> Service:
    """Trace, compile, warm and measure; serving starts where this ends.

    Args:
        checkpoint: With trained ramps, unless only the original model is served.
        config: Settings.
        progress: ``progress(phase)`` gives the callback for that phase.
        predecessor: What this one is to replace, and which serves meanwhile. Compiling leaves it
            the processors, and one of equal programs hands on its measured latencies; only others
            are measured, beside it.
        began: Told of the programs before they are compiled: closing them ends that.

    Raises:
        CheckpointError: The model's sites are no longer the checkpoint's.
        ConfigError: The active sites have no ramps.
        GraphError: The model does not trace.
    """
    config = config or ServiceConfig()
    tell = progress or (lambda _: lambda done, total, what: None)
    model = checkpoint.model
    program = trace(model.apply, model.params, *model.example_inputs(config.batch_sizes[0]))
    check_sites(checkpoint, program.sites)
    known = None if predecessor is None else predecessor.programs.executables
    compiled = 0 if known is None else known.compiled
    programs = Programs(
        program,
        model,
        checkpoint.ramps,
        config.batch_sizes,
        config.criterion,
        executables=known,
        gently=predecessor is not None,
        device=_device(config.device),
    )
    if began is not None:
        began(programs)
    programs.warm_atomic(tell("compiling stages"))
    programs.warm_merged((), tell("compiling the original model"))
    if predecessor is not None and programs.executables.compiled == compiled:
        profile = predecessor.profile
        programs.warm_merged(profile.sites, tell("taking over merged stages"))
    else:
        profile = _within_budget(programs, checkpoint, config, tell)
    return Service(programs, profile, config, checkpoint.validation)


def _device(index: int | None) -> jax.Device | None:
    """The device of an index.

    Raises:
        ConfigError: There is none.
    """
    if index is None:
        return None
    devices = jax.devices()
    if not 0 <= index < len(devices):
        raise ConfigError(f"the device is {index}, expected 0..{len(devices) - 1}: {devices}")
    return devices[index]


def _within_budget(
    programs: Programs,
    checkpoint: Checkpoint,
    config: ServiceConfig,
    tell: Callable[[str], Progress],
) -> Profile:
    """Measure the active ramps; while they cost more than the budget, place one fewer."""
    sites, budget = checkpoint.active, config.placement.ramp_budget
    while True:
        programs.warm_merged(sites, tell(f"compiling {len(sites) + 1} merged stages"))
        profile = _measured(programs, sites, budget, tell(f"measuring {len(sites)} ramps"))
        added = overhead_frac(profile)
        if not sites or added <= budget:
            return profile
        tried = len(sites)
        fewer = replace(config.placement, max_ramps=tried - 1)
        sites = initial_sites(
            checkpoint.sites, checkpoint.ramps, checkpoint.validation, fewer, config.control
        )
        # With none, nothing leaves early until control finds better ones: one should know why.
        logger.log(
            logging.INFO if sites else logging.WARNING,
            "%d ramp%s would add %.1f %% to the worst-case latency, more than the ramp budget of "
            "%.1f %%: starting with %d",
            *(tried, "s" * (tried > 1), 100 * added, 100 * budget, len(sites)),
        )


def _measured(
    programs: Programs, sites: tuple[int, ...], budget: float, progress: Progress
) -> Profile:
    """Measure ramps; those that look too slow are measured twice more, and the middle one counts.

    A machine that does other work now and then makes a single measurement wrong by more than the
    whole budget, and ramps that are given up for it are not tried again at the start.
    """
    profiles = [measure(programs, sites, progress=progress)]
    if sites and overhead_frac(profiles[0]) > budget:
        profiles += [measure_again(programs, profiles[0]) for _ in range(2)]
    return sorted(profiles, key=overhead_frac)[len(profiles) // 2]


def overhead_frac(profile: Profile) -> float:
    """What the active ramps add to an input that never exits: the mean over batch shapes."""
    return float(np.mean([shape.overhead_frac for shape in profile.shapes]))
