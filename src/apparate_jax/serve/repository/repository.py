"""The models of a server by name and version: found, loaded, replaced, unloaded. Thread-safe.

Loading brings the new version up beside the old one, puts it in its place in one step, and then
lets the old one end: at every moment a request finds one of the two, and is answered by the one
that it found.
"""

import contextlib
import gc
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apparate_jax.errors import ConfigError
from apparate_jax.manifest import fingerprint, read_manifest
from apparate_jax.memory import give_back
from apparate_jax.serve.inference import Kind, Refusal, Served
from apparate_jax.serve.repository.deployment import DRAIN_S, Deployment, ModelConfig, bring_up
from apparate_jax.serve.repository.loading import Abandoned, Closable, Loading, rested
from apparate_jax.serve.repository.versions import chosen
from apparate_jax.serve.service import OnPhase
from apparate_jax.serve.telemetry import Statistics

if TYPE_CHECKING:
    from apparate_jax.serve.telemetry.spans import Spans

logger = logging.getLogger(__name__)

BringUp = Callable[..., Deployment]


class _Model:
    """A model's versions that run, and why it has none where it has none."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.running: dict[str, Deployment] = {}
        self.state = "UNAVAILABLE"
        self.reason = "not loaded"
        self.wanted = False
        self.changing = threading.Lock()

    def latest(self) -> Deployment | None:
        running = self.running  # another one may take its place meanwhile
        return running[max(running, key=int)] if running else None


class Repository:
    """What a server serves. As a context manager it closes everything at its end."""

    def __init__(
        self,
        models: Sequence[ModelConfig],
        *,
        state_dir: Path | None = None,
        drain_s: float = DRAIN_S,
        spans: "Spans | None" = None,
        bring_up: BringUp = bring_up,
    ) -> None:
        """Nothing is read before :meth:`load`.

        Args:
            models: With names of their own.
            state_dir: Where controllers' states are kept; nowhere if None.
            drain_s: How long requests under way may take when a model ends.
            spans: Where requests are traced; nowhere if None. Closed with the repository.
            bring_up: Makes deployments; for tests.

        Raises:
            ConfigError: Two models of one name.
        """
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ConfigError(f"the models are {names}, expected a name of its own for each")
        self._models = {model.name: _Model(model) for model in models}
        self._state_dir = state_dir
        self._drain_s = drain_s
        self._spans = spans
        self._bring_up = bring_up
        self._swap = threading.Lock()
        self._loading = Loading()

    def __enter__(self) -> "Repository":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all models, loaded or not."""
        return tuple(self._models)

    @property
    def ready(self) -> bool:
        """Whether every model that was not unloaded takes requests."""
        wanted = [model for model in self._models.values() if model.wanted]
        return all(
            model.running and all(one.ready for one in list(model.running.values()))
            for model in wanted
        )

    @contextlib.contextmanager
    def lease(self, name: str, version: str = "") -> Iterator[Served]:
        """Use a model for a request.

        Args:
            name: Of the model.
            version: The latest one if empty.

        Raises:
            Refusal: Of kind ``UNKNOWN`` or ``UNAVAILABLE``.
        """
        with self._swap:  # a deployment is found and leased in one step, or not found any more
            lease = self._found(name, version).lease()
            served = lease.__enter__()
        try:
            yield served
        finally:
            lease.__exit__(None, None, None)

    def served(self, name: str, version: str = "") -> Served:
        """A model, to be described.

        Raises:
            Refusal: Of kind ``UNKNOWN`` or ``UNAVAILABLE``.
        """
        return self._found(name, version).served

    def statistics(self) -> Mapping[tuple[str, str], Statistics]:
        """The counts of everything that is served, by name and version."""
        return {
            (name, version): one.statistics
            for name, model in self._models.items()
            for version, one in dict(model.running).items()
        }

    def index(self) -> list[dict[str, Any]]:
        """Every model and version: ``name``, ``version``, ``state`` and ``reason``."""
        entries = []
        for name, model in self._models.items():
            running = dict(model.running)
            if not running:
                entries.append(_entry(name, "", model.state, model.reason))
            for version, one in running.items():
                state, reason = ("READY", "") if one.ready else ("UNAVAILABLE", "not ready")
                entries.append(_entry(name, version, state, reason))
        return entries

    def load(self, name: str, progress: OnPhase | None = None) -> None:
        """Serve what is on disk now; what is served already and did not change stays.

        Args:
            name: Of a model.
            progress: ``progress(phase)`` gives the callback for that phase.

        Raises:
            Refusal: No such model, or the load was abandoned.
            ApparateError: It cannot be served. What was served before goes on.
        """
        model = self._model(name)
        with model.changing:
            if not model.running:
                model.state, model.reason = "LOADING", ""
            try:
                with self._loading.one() as began:
                    left = self._load(model, self._loading.checked(progress), began)
            except Exception as error:
                if self._loading.abandoned:  # whatever that broke
                    raise Abandoned from error
                if not model.running:
                    model.state, model.reason = "UNAVAILABLE", str(error)
                raise
            model.wanted = True
        self._end(left)
        if left:  # else JAX keeps traces of their stages, and the first ones are never let go
            frozen = any(one.frozen for one in left)
            del left
            give_back(frozen=frozen)

    def freeze(self) -> None:
        """What is there now stays: the collector need not look at it again."""
        for model in self._models.values():
            for one in model.running.values():
                one.frozen = True
        gc.collect()
        gc.freeze()

    def unload(self, name: str) -> None:
        """Stop serving a model; what is under way is answered first.

        Raises:
            Refusal: No such model.
        """
        model = self._model(name)
        with model.changing:
            self._take_away(model)

    def _take_away(self, model: _Model) -> None:
        with self._swap:
            left, model.running = model.running, {}
            model.wanted = False
            model.state, model.reason = "UNAVAILABLE", "unloaded"
        self._end(list(left.values()))

    def abandon(self) -> None:
        """Give up loads that are under way, for good; what is served stays."""
        self._loading.abandon()

    def close(self) -> None:
        """Unload everything; a load that is under way is given up and not waited for."""
        self.abandon()
        threads = [
            threading.Thread(target=self._take_away, args=(one,), name=f"apparate-close-{name}")
            for name, one in self._models.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._spans is not None:
            self._spans.close()

    def _load(
        self, model: _Model, progress: OnPhase, began: Callable[[Closable], None]
    ) -> list[Deployment]:
        """Bring up what is new; give back what is to end."""
        config = model.config
        places = chosen(config.path, config.versions, config.latest)
        wanted: dict[str, Deployment] = {}
        new: list[Deployment] = []
        try:
            for version, path in places.items():
                before = model.running.get(version)
                same = before is not None and before.read_from == fingerprint(read_manifest(path))
                if before is not None and same and before.ready:  # an engine that died is replaced
                    wanted[version] = before
                    continue
                older = before or model.latest()
                wanted[version] = self._bring_up(
                    config,
                    version,
                    path,
                    state_dir=self._state_dir,
                    predecessor=None if older is None else older.service,
                    progress=progress if older is None else rested(progress),
                    spans=self._spans,
                    began=began,
                )
                new.append(wanted[version])
            with self._swap:
                self._loading.check()  # else nobody would end them
                before_all, model.running = model.running, wanted
        except BaseException:
            self._end(new)
            raise
        for one in new:  # not before: who reads this line asks next, and is to be answered by it
            logger.info("model %r, version %s is loaded", config.name, one.served.version)
        return [one for one in before_all.values() if one not in wanted.values()]

    def _end(self, deployments: Sequence[Deployment]) -> None:
        for one in deployments:
            one.close(self._drain_s)

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            known = ", ".join(map(repr, self._models))
            raise Refusal(Kind.UNKNOWN, f"model {name!r} is unknown: served here are {known}")
        return model

    def _found(self, name: str, version: str) -> Deployment:
        model = self._model(name)
        running = dict(model.running)
        if not running:
            raise Refusal(
                Kind.UNAVAILABLE, f"model {name!r} is not ready: {model.reason or 'it is loading'}"
            )
        found = running.get(version or max(running, key=int))
        if found is None:
            raise Refusal(
                Kind.UNKNOWN,
                f"model {name!r} has no version {version!r}: it has {', '.join(running)}",
            )
        return found


def _entry(name: str, version: str, state: str, reason: str) -> dict[str, str]:
    return {"name": name, "version": version, "state": state, "reason": reason}
