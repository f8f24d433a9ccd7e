"""What is counted of one served model. Fed by its engine, its controller and the frontends.

Counting a batch takes tens of microseconds; everything that is computed from the counts is computed
when somebody asks. Thread-safe.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from apparate_jax.control.interface import Info, name_sites
from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import BatchRecord, ExitPlan, Profile
from apparate_jax.serve.telemetry.counts import Duration, Histogram, Recent
from apparate_jax.serve.telemetry.history import History

EVENTS = 100
"""Events that are kept."""


@dataclass(slots=True)
class BatchCount:
    """Batches of one padded size.

    Attributes:
        infer: From the batch's dispatch to the original model's answers.
        answers: Inputs in them.
    """

    infer: Duration = field(default_factory=Duration)
    answers: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that control did.

    Attributes:
        at_s: Seconds since the epoch.
        text: In words.
    """

    at_s: float
    text: str


class Watched(Protocol):
    """What an engine says of itself now."""

    @property
    def plan(self) -> ExitPlan:
        """The plan in force."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that wait for a batch."""
        ...

    @property
    def ready(self) -> bool:
        """Whether requests are taken and answered."""
        ...


class Statistics:
    """Counts of one model since its start. Read them under :attr:`lock`."""

    def __init__(
        self,
        site_names: Sequence[str],
        profile: Profile,
        *,
        max_disagreement: float,
        promise: str = "long-run",
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Nothing was counted yet.

        Args:
            site_names: Of all sites of the model.
            profile: Its measured latencies.
            max_disagreement: The constraint, as a share.
            promise: What is held of it.
            wall: Seconds since the epoch.
        """
        self.lock = threading.Lock()
        self.site_names = tuple(site_names)
        self.latency_model = LatencyModel(profile)
        self.max_disagreement = max_disagreement
        self.promise = promise
        self.wall = wall
        self.started_s = wall()
        # requests, as clients see them
        self.success = Duration()
        self.failure = Duration()
        self.failures: Counter[str] = Counter()  # by reason
        self.input = Duration()
        self.output = Duration()
        self.pending = 0
        # answers
        self.queue = Duration()
        self.infer = Duration()
        self.latency = Histogram()
        self.full_latency = Histogram()
        self.queue_times = Histogram()
        self.exits: Counter[int] = Counter()  # by site, -1 is the original model
        self.checked = 0
        self.wrong = 0
        self.lost = 0
        self.recent = Recent()
        self.history = History(self.site_names)
        # batches
        self.batches: dict[int, BatchCount] = {}
        self.shadow_batches = 0
        self.deferred_batches = 0  # their rest ran after others
        self.bare_batches = 0  # without ramps
        self.last_answer_s = 0.0
        # control
        self.engine: Watched | None = None
        self._sites: tuple[int, ...] | None = None
        self.tunings = Histogram()
        self.set_changes = 0
        self.stopped: Counter[int] = Counter()  # by site
        self.events: deque[Event] = deque(maxlen=EVENTS)

    def observe(self, record: BatchRecord) -> None:
        """Count a completed batch; the engine's observer."""
        latency = record.released_s - record.arrived_s
        full = record.finished_s - record.arrived_s
        waited = record.dispatched_s - record.arrived_s
        slower = self.latency_model.total_ms(record.sites, record.shape)
        slower /= self.latency_model.vanilla_ms(record.shape)
        vanilla = waited + record.took_s / max(1.0, slower)
        where = np.asarray([*record.sites, -1], np.int32)[record.exits]
        early = record.exits < len(record.sites)
        wrong = early.copy()
        rows = np.flatnonzero(early)
        wrong[rows] = record.predictions[rows, record.exits[rows]] != record.final_predictions[rows]
        with self.lock:
            count = len(latency)
            self.queue.add(float(waited.sum()), count)
            self.infer.add(float((record.released_s - record.dispatched_s).sum()), count)
            self.latency.add(latency)
            self.full_latency.add(full)
            self.queue_times.add(waited)
            self.exits.update(where.tolist())
            self.checked += count + record.lost
            self.wrong += int(wrong.sum()) + record.lost
            self.lost += record.lost
            self.recent.push(record.finished_s, latency * 1e3, vanilla * 1e3, where, wrong)
            batch = self.batches.setdefault(record.shape, BatchCount())
            batch.infer.add(record.took_s)
            batch.answers += count
            self.shadow_batches += record.shadow is not None
            self.deferred_batches += record.deferred_s > 0.0
            self.bare_batches += not record.sites
            self.last_answer_s = self.wall()
            self.sample(record.finished_s)

    def sample(self, now_s: float) -> None:
        """Take a sample of the history if one is due. Under the lock, which the caller holds.

        Args:
            now_s: Seconds of the engine's clock.
        """
        if self.history.due(now_s):
            self.history.sample(now_s, self.wall(), self.recent, self.plan, self.waiting)

    def watch(self, engine: Watched) -> None:
        """Tell of this engine from now on."""
        self.engine = engine
        self._sites = engine.plan.sites

    @property
    def plan(self) -> ExitPlan:
        """The plan in force."""
        return ExitPlan() if self.engine is None else self.engine.plan

    @property
    def waiting(self) -> int:
        """Inputs that wait for a batch, now."""
        return 0 if self.engine is None else self.engine.waiting

    @property
    def ready(self) -> bool:
        """Whether requests are taken, now."""
        return self.engine is not None and self.engine.ready

    def decided(self, plan: ExitPlan, info: Info) -> None:
        """Note a decision of the controller: the plan from now on, and what it rests on."""
        with self.lock:
            before = plan.sites if self._sites is None else self._sites
            self.set_changes += plan.sites != before
            self._sites = plan.sites
            if info.tuning is not None:
                self.tunings.add(np.asarray([info.took_s]))
            self.stopped.update(before[r] for r in info.stopped if r < len(before))
            # tunings follow one another by the second; what they decide is in the thresholds
            told = [text for text in info.events if not text.startswith("tuned on")]
            named = (name_sites(text, self.site_names) for text in told)
            self.events.extend(Event(self.wall(), text) for text in named)

    def begun(self) -> None:
        """Note a request of a client, before it is read."""
        with self.lock:
            self.pending += 1

    def answered(self, request_s: float, input_s: float, output_s: float) -> None:
        """Note a request that was answered.

        Args:
            request_s: From its first byte to its answer.
            input_s: For reading and checking it.
            output_s: For writing the answer.
        """
        with self.lock:
            self.pending -= 1
            self.success.add(request_s)
            self.input.add(input_s)
            self.output.add(output_s)

    def failed(self, reason: str, request_s: float) -> None:
        """Note a request that was not answered.

        Args:
            reason: Of few kinds: it is a label of a metric.
            request_s: From its first byte to its end.
        """
        with self.lock:
            self.pending -= 1
            self.failure.add(request_s)
            self.failures[reason] += 1
