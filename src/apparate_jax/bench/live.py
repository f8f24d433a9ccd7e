"""The live benchmark: the original model and the one with early answers, in one run.

Both are the same engine on the same warmed programs, take the same inputs at the same arrival
times, in turn, over several rounds. Throughput is measured apart, with a queue that is never
empty; latency at a stated share of the original's measured throughput, open loop: from the moment a
request was meant to arrive to the moment its answer was there.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from apparate_jax.bench.baselines import Policy
from apparate_jax.bench.comparison import (
    AGAIN,
    SYSTEMS,
    Answers,
    Comparison,
    Decisions,
    Round,
    answers_of,
    concatenate,
)
from apparate_jax.bench.feed import Example, Held, feed
from apparate_jax.bench.workload import (
    ARRIVALS,
    Times,
    arrivals,
    at_rate,
    check_load,
    load_of,
    stretch,
)
from apparate_jax.core import BatchRecord
from apparate_jax.data.dataset import Dataset
from apparate_jax.errors import ConfigError, QueueFullError
from apparate_jax.serve.engine import Engine
from apparate_jax.serve.feedback import Feedback
from apparate_jax.serve.service import Service

OnPhase = Callable[[str, int, int], None]
"""``on_phase(what, done, total)``: called as requests are sent."""


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """Settings of the live benchmark.

    Attributes:
        load_frac: Mean arrival rate, as a share of the original's measured throughput.
        rate_rps: Requests per second instead, as of a camera.
        arrivals: ``"poisson"`` or ``"fixed"``; not used with a trace.
        rounds: How often both systems take their turn.
        round_s: Length of one round of arrivals.
        saturation_s: Length of one measurement of throughput.
        outstanding: Requests that are kept waiting while throughput is measured.
        settle: Answers of the early-answer engine before the first round, so that its thresholds
            are tuned: they count for agreement, not for latency.
        seed: Of arrivals.
        noise_floor: Also run the original a second time in each round, as if it were another
            system: by how much the two differ is what this machine lets nobody measure.
    """

    load_frac: float = 0.4
    arrivals: str = "poisson"
    rounds: int = 3
    round_s: float = 15.0
    saturation_s: float = 4.0
    outstanding: int = 32
    settle: int = 512
    seed: int = 0
    noise_floor: bool = False
    rate_rps: float | None = None

    def __post_init__(self) -> None:
        check_load(self.load_frac, self.rate_rps)
        if min(self.rounds, self.outstanding) < 1 or min(self.round_s, self.saturation_s) <= 0:
            raise ConfigError(
                f"rounds {self.rounds}, outstanding {self.outstanding}, round_s {self.round_s} and "
                f"saturation_s {self.saturation_s} must be above 0"
            )
        if self.settle < 0:
            raise ConfigError(f"settle is {self.settle}, expected at least 0")
        if self.arrivals not in ARRIVALS:
            raise ConfigError(f"arrivals are {self.arrivals!r}, expected one of {list(ARRIVALS)}")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected at least 0")

    @property
    def load(self) -> str:
        """How fast requests come, in words."""
        return load_of(self.load_frac, self.rate_rps)

    @property
    def stated_load(self) -> float | None:
        """The load that was asked for; None where a rate was."""
        return self.load_frac if self.rate_rps is None else None


@dataclass(slots=True)
class Recorder:
    """Collects batch records of an engine with so many sites; the engine's observer."""

    sites: int
    records: list[BatchRecord] = field(default_factory=list)

    def __call__(self, record: BatchRecord) -> None:
        """Take a completed batch's record."""
        self.records.append(record)

    def take(self) -> Answers:
        """What was recorded since the last call."""
        records, self.records = self.records, []
        return answers_of(records, self.sites)


def run_live(
    service: Service,
    data: Dataset,
    config: LiveConfig | None = None,
    *,
    trace: Times | None = None,
    policy: Policy | None = None,
    on_phase: OnPhase | None = None,
) -> Comparison:
    """Measure both systems, alternating.

    Args:
        service: Warmed programs and profile.
        data: Inputs; used in order, from the start again when they run out.
        config: Settings.
        trace: Arrival times to use instead of drawn ones, brought to the rate; each round goes
            on where the one before ended.
        policy: Another system instead of the configured controller (its recording is not used).
        on_phase: Progress.

    Raises:
        NumericsError: The model's logits for an input are not finite.
        QueueFullError: The system falls behind its arrivals by more than the queue holds.
        ConfigError: The measurement of throughput is too short for two batches.
    """
    config = config or LiveConfig()
    names = (*SYSTEMS, AGAIN) if config.noise_floor else SYSTEMS
    recorders = {name: Recorder(len(service.programs.sites)) for name in names}
    decisions = Decisions()
    held = Held(data, service.programs.model)
    early, feedback = _early(service, recorders["apparate"], decisions, policy)
    engines = {
        name: (early if name == "apparate" else service.vanilla(recorders[name])).start()
        for name in names
    }
    feedback.attach(early)
    driver = _Driver(engines, recorders, data, config, on_phase or (lambda *_: None), held)
    try:
        throughput = driver.saturate()
        driver.settle(service.config.batch_sizes[-1])
        capacity = float(np.median([t["vanilla"] for t in throughput]))
        rate = config.rate_rps or config.load_frac * capacity
        rounds = tuple(
            driver.one_round(i, rate, trace, throughput[i]) for i in range(config.rounds)
        )
        return Comparison(rounds, rate, early.plan, decisions, concatenate(driver.outside))
    finally:
        for engine in engines.values():
            engine.close()
        feedback.close()


def _early(
    service: Service, recorder: Recorder, decisions: Decisions, policy: Policy | None
) -> tuple[Engine, Feedback]:
    """The engine with early answers, its first set of ramps on merged stages."""
    if policy is None:
        return service.apparate(recorder, decisions.count)
    controller = policy.controller
    service.programs.warm_merged(controller.plan(controller.init()).sites)
    engine = policy.on(service.config.engine)
    service = service._replace(config=replace(service.config, engine=engine))
    return service.apparate(recorder, decisions.count, controller, policy.load_policy)


@dataclass(slots=True)
class _Driver:
    """Sends requests to both engines."""

    engines: dict[str, Engine]
    recorders: dict[str, Recorder]
    data: Dataset
    config: LiveConfig
    on_phase: OnPhase
    held: Held
    outside: list[Answers] = field(default_factory=list)
    sent: int = 0

    def order(self, index: int) -> tuple[str, ...]:
        """Who goes first in this round: every order has its turn."""
        orders = tuple(itertools.permutations(self.engines))
        return orders[index % len(orders)]

    def saturate(self) -> list[dict[str, float]]:
        """Throughput of both systems in each round, the queue never empty."""
        results: list[dict[str, float]] = []
        for i in range(self.config.rounds):
            rates = {}
            for name in self.order(i):
                rates[name] = self._saturate_one(name)
                answers = self.recorders[name].take()
                if name == "apparate":
                    self.outside.append(answers)
            results.append(rates)
            self.on_phase("throughput", i + 1, self.config.rounds)
        return results

    def settle(self, outstanding: int) -> None:
        """Answers of the early-answer engine until its thresholds are tuned.

        Args:
            outstanding: Requests that are open at a time; with more than fit the largest batch
                shape the engine would be saturated, and run without ramps.
        """
        first = self.sent

        def more() -> bool:
            sent = min(self.sent - first, self.config.settle)
            self.on_phase("settling", sent, self.config.settle)
            return sent < self.config.settle

        self._closed_loop("apparate", outstanding, more)
        self.outside.append(self.recorders["apparate"].take())

    def _saturate_one(self, name: str) -> float:
        """Requests completed per second, from the first batch's end on, while others wait."""
        end_s = time.monotonic() + self.config.saturation_s
        self._closed_loop(name, self.config.outstanding, lambda: time.monotonic() < end_s)
        # What ends later runs while the queue gets empty, and deferred batches catch up then.
        records = [one for one in self.recorders[name].records if one.finished_s <= end_s]
        if len(records) < 2:
            raise ConfigError(
                f"saturation_s is {self.config.saturation_s}, too short for two batches of this "
                "model: measure for longer, or use smaller batch shapes"
            )
        finished = np.array([r.finished_s for r in records])
        sizes = np.array([len(r.exits) for r in records])
        return float(sizes[1:].sum() / (finished[-1] - finished[0]))

    def _closed_loop(self, name: str, outstanding: int, more: Callable[[], bool]) -> None:
        """Keep ``outstanding`` requests open for as long as there are to be more."""
        engine, waiting = self.engines[name], set[Future[Any]]()
        while more():
            while len(waiting) < outstanding:
                waiting.add(engine.submit(self.held[self.sent]))
                self.sent += 1
            done, waiting = wait(waiting, return_when="FIRST_COMPLETED")
            _all_answered(done)
        _all_answered(waiting)
        engine.wait_idle()

    def one_round(
        self, index: int, rate: float, trace: Times | None, throughput: dict[str, float]
    ) -> Round:
        """The same arrivals and inputs to both systems, one after the other."""
        count = max(8, round(rate * self.config.round_s))
        if trace is None:
            times = arrivals(self.config.arrivals, rate, count, self.config.seed + index)
        else:
            times = stretch(at_rate(trace, rate), index * count, count)
        first, answers = self.sent, {}
        for name in self.order(index):
            self.sent = first
            self._open_loop(name, times, f"round {index + 1} of {self.config.rounds}, {name}")
            answers[name] = self.recorders[name].take()
        return Round(throughput, answers, first % len(self.data), self.order(index))

    def _open_loop(self, name: str, times: Times, what: str) -> None:
        engine = self.engines[name]
        examples = feed(self.data, engine.model, self.sent, len(times))

        def on_sent(sent: int) -> None:
            if sent % 16 == 0 or sent == len(times):
                self.on_phase(what, sent, len(times))

        try:
            send(engine, examples, times, on_sent)
        except QueueFullError as error:
            raise QueueFullError(
                f"{name} falls behind the arrivals {self.config.load} ({error}): take a lower "
                "load_frac or rate_rps, or a shorter round_s"
            ) from error
        self.sent += len(times)


def send(
    engine: Engine,
    examples: Iterator[Example],
    times: Times,
    on_sent: Callable[[int], None] = lambda sent: None,
) -> None:
    """Send each example when it is due, open loop; returns when all have run to their end.

    Args:
        engine: Where to.
        examples: As many as there are times.
        times: f64[n], ascending, in seconds from the start.
        on_sent: Told how many were sent.

    Raises:
        QueueFullError: The engine falls behind by more than its queue holds.
    """
    futures = []
    example = next(examples, None)  # before the clock starts
    start = time.monotonic() + 0.05
    for sent, at in enumerate(times.tolist(), 1):
        assert example is not None  # as many as there are times
        due = start + at
        while (left := due - time.monotonic()) > 0:
            time.sleep(left)
        futures.append(engine.submit(example, arrived_s=due))
        example = next(examples, None)
        on_sent(sent)
    _all_answered(futures)
    engine.wait_idle()


def _all_answered(futures: Iterable[Future[Any]]) -> None:
    """Wait for answers; an error in place of one ends the benchmark."""
    for future in futures:
        future.result()
