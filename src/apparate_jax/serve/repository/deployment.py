"""One version of a model that runs: its engine and controller, its counts, its name.

It is leased for as long as a request is under way. Closing waits for the leases first, so a request
that found a model has its answer from that model, whatever takes its place meanwhile.
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from apparate_jax.checkpoint import load_checkpoint
from apparate_jax.core import BatchRecord
from apparate_jax.errors import CheckpointError, ConfigError
from apparate_jax.serve.engine import Engine
from apparate_jax.serve.feedback import Feedback
from apparate_jax.serve.inference import Served
from apparate_jax.serve.inference.served import MAX_ROWS
from apparate_jax.serve.profile import keep_profile
from apparate_jax.serve.programs import Programs
from apparate_jax.serve.service import OnPhase, Service, ServiceConfig, prepare
from apparate_jax.serve.state_store import StateStore
from apparate_jax.serve.telemetry import Statistics

if TYPE_CHECKING:
    from apparate_jax.serve.telemetry.spans import Spans

DRAIN_S = 30.0
"""How long requests under way may take once a model is to end."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model that is to be served.

    Attributes:
        name: Under which clients ask for it.
        path: A checkpoint, or a directory with one for each version.
        service: How it is served.
        versions: Which ones; the latest if empty.
        latest: How many of the latest.
        max_rows: Most examples in one request.
    """

    name: str
    path: Path
    service: ServiceConfig = field(default_factory=ServiceConfig)
    versions: tuple[str, ...] = ()
    latest: int = 1
    max_rows: int = MAX_ROWS

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ConfigError(f"the model name is {self.name!r}, expected a name without '/'")
        if self.latest < 1 or self.max_rows < 1:
            raise ConfigError(
                f"latest is {self.latest} and max_rows {self.max_rows}, expected at least 1"
            )


class Deployment:
    """A model that is served. Made by :func:`bring_up`, ended by :meth:`close`."""

    def __init__(
        self,
        served: Served,
        service: Service,
        engine: Engine,
        feedback: Feedback,
        statistics: Statistics,
        read_from: str,
    ) -> None:
        self.served = served
        self.service = service
        self.statistics = statistics
        self.read_from = read_from
        """Checksum of the checkpoint that it came from."""
        self.frozen = False
        """Whether the collector was told to leave it alone."""
        self._engine = engine
        self._feedback = feedback
        self._leases = 0
        self._free = threading.Condition()

    @property
    def ready(self) -> bool:
        """Whether requests are taken and answered."""
        return self._engine.ready

    @contextlib.contextmanager
    def lease(self) -> Iterator[Served]:
        """Use it for a request; it stays until that has ended."""
        with self._free:
            self._leases += 1
        try:
            yield self.served
        finally:
            with self._free:
                self._leases -= 1
                self._free.notify_all()

    def close(self, timeout_s: float = DRAIN_S) -> None:
        """Answer what is under way, save what was learnt, and end."""
        with self._free:
            self._free.wait_for(lambda: self._leases == 0, timeout_s)
        self._engine.close(timeout_s=timeout_s)
        self._feedback.close()
        self.service.programs.close()


def bring_up(
    config: ModelConfig,
    version: str,
    path: Path,
    *,
    state_dir: Path | None = None,
    predecessor: Service | None = None,
    progress: OnPhase | None = None,
    spans: "Spans | None" = None,
    began: Callable[[Programs], None] | None = None,
) -> Deployment:
    """Read a checkpoint, compile, warm and measure it, and start to serve.

    Args:
        config: The model that it is a version of.
        version: Its name.
        path: Its checkpoint.
        state_dir: Where controllers' states are kept; nowhere if None.
        predecessor: Another version or an older one of the same model, which serves meanwhile.
        progress: ``progress(phase)`` gives the callback for that phase.
        spans: Where requests are traced; nowhere if None.
        began: Told of the programs before they are compiled: closing them ends that.

    Raises:
        CheckpointError: It cannot be read, or has no ramps.
        ConfigError: It does not fit the settings.
    """
    checkpoint = load_checkpoint(path)
    if not checkpoint.ramps:
        raise CheckpointError(
            f"the checkpoint {path} has no ramps yet: run apparate train-ramps {path} --data ..."
        )
    service = prepare(checkpoint, config.service, progress, predecessor=predecessor, began=began)
    keep_profile(service.profile, path)
    control, read_from = config.service.control, checkpoint.read_from or ""
    names = tuple(site.name for site in checkpoint.sites)
    statistics = Statistics(
        names,
        service.profile,
        max_disagreement=control.max_disagreement,
        promise=control.promise,
    )
    store = None if state_dir is None else _store(state_dir, config, version, read_from)

    def observe(record: BatchRecord) -> None:
        statistics.observe(record)
        if spans is not None and record.traces:
            spans.observe(record, names)

    engine, feedback = service.apparate(observe, statistics.decided, store=store)
    statistics.watch(engine)
    engine.start()
    feedback.attach(engine)
    served = Served(
        engine,
        name=config.name,
        version=version,
        max_rows=config.max_rows,
        statistics=statistics,
        spans=spans,
    )
    return Deployment(served, service, engine, feedback, statistics, read_from)


def _store(state_dir: Path, config: ModelConfig, version: str, read_from: str) -> StateStore:
    """Where the controller's state is kept, under all that it depends on."""
    file = state_dir / f"{_file_name(config.name)}-{_file_name(version)}.npz"
    return StateStore(file, f"{read_from} {config.service.control} {config.service.placement}")


def _file_name(name: str) -> str:
    """A name that is a file's; different ones stay different."""
    if name.replace("-", "").replace("_", "").isalnum() and name.isascii() and len(name) < 100:
        return name
    return f"x{hashlib.sha256(name.encode()).hexdigest()[:24]}"
