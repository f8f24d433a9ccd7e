"""The models that a frontend serves, found by name and version."""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from apparate_jax.serve.inference.answers import Answering
from apparate_jax.serve.inference.counted import model_statistics
from apparate_jax.serve.inference.describe import Description
from apparate_jax.serve.inference.refusals import Kind, Refusal
from apparate_jax.serve.inference.served import DEFAULT_VERSION, MAX_ROWS, Served
from apparate_jax.serve.telemetry import Statistics


class Models(Protocol):
    """What frontends need to know of the models; a repository, or one model alone."""

    @property
    def ready(self) -> bool:
        """Whether every model that is to be served takes requests."""
        ...

    def served(self, name: str, version: str = "") -> Served:
        """A model, to be described; the latest version if none is named.

        Raises:
            Refusal: Of kind ``UNKNOWN`` or ``UNAVAILABLE``.
        """
        ...

    def lease(self, name: str, version: str = "") -> AbstractContextManager[Served]:
        """A model, for a request: it stays until that has ended.

        Raises:
            Refusal: Of kind ``UNKNOWN`` or ``UNAVAILABLE``.
        """
        ...

    def index(self) -> list[Description]:
        """Every model and version: ``name``, ``version``, ``state`` and ``reason``."""
        ...

    def load(self, name: str) -> None:
        """Serve what is on disk now. Takes as long as that takes.

        Raises:
            Refusal: No such model, or models are fixed.
            ApparateError: It cannot be served.
        """
        ...

    def unload(self, name: str) -> None:
        """Stop serving a model, once what is under way is answered.

        Raises:
            Refusal: No such model, or models are fixed.
        """
        ...

    def statistics(self) -> Mapping[tuple[str, str], Statistics]:
        """The counts of everything that is served, by name and version."""
        ...


class OneModel:
    """An engine under one name, for as long as the server runs."""

    def __init__(
        self,
        engine: Answering,
        *,
        name: str,
        version: str = DEFAULT_VERSION,
        max_rows: int = MAX_ROWS,
        statistics: Statistics | None = None,
    ) -> None:
        """Name an engine.

        Args:
            engine: Answers single examples.
            name: Under which clients address the model.
            version: The one version that there is.
            max_rows: Most examples in one request.
            statistics: Counts of the engine, where it keeps any.

        Raises:
            ConfigError: If a name cannot be part of a path, or the model's inputs are unknown or
                have no datatype of the protocol.
        """
        self._served = Served(
            engine, name=name, version=version, max_rows=max_rows, statistics=statistics
        )

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._served.ready

    def served(self, name: str, version: str = "") -> Served:
        """The model; see :meth:`Models.served`."""
        served = self._served
        if name != served.name:
            raise Refusal(
                Kind.UNKNOWN, f"model {name!r} is unknown: {served.name!r} is served here"
            )
        if version not in ("", served.version):
            raise Refusal(
                Kind.UNKNOWN,
                f"model {name!r} has no version {version!r}: it has {served.version!r}",
            )
        return served

    @contextlib.contextmanager
    def lease(self, name: str, version: str = "") -> Iterator[Served]:
        """The model; see :meth:`Models.lease`."""
        yield self.served(name, version)

    def index(self) -> list[Description]:
        """One entry."""
        served = self._served
        state, reason = ("READY", "") if served.ready else ("UNAVAILABLE", "not ready")
        return [{"name": served.name, "version": served.version, "state": state, "reason": reason}]

    def load(self, name: str) -> None:
        """Refused: the model is fixed."""
        self._fixed("loaded")

    def unload(self, name: str) -> None:
        """Refused: the model is fixed."""
        self._fixed("unloaded")

    def statistics(self) -> Mapping[tuple[str, str], Statistics]:
        """Of the one model, if its engine keeps any."""
        counts = self._served.statistics
        return {} if counts is None else {(self._served.name, self._served.version): counts}

    def _fixed(self, what: str) -> None:
        raise Refusal(
            Kind.UNSUPPORTED,
            f"models are not {what} while this server runs: it serves {self._served.name!r}, which "
            "it was started with",
        )


def statistics_of(models: Models, name: str = "", version: str = "") -> Description:
    """The statistics of a model's version, of all its versions, or of every model.

    Raises:
        Refusal: Of kind ``UNKNOWN`` or ``UNAVAILABLE``.
    """
    counts = models.statistics()
    if name:
        models.served(name, version)
        counts = {
            key: one for key, one in counts.items() if key[0] == name and version in ("", key[1])
        }
    return model_statistics(counts)


def check_control(allowed: bool) -> None:
    """Refuse to load or unload where clients may not.

    Raises:
        Refusal: Of kind ``FORBIDDEN``.
    """
    if not allowed:
        raise Refusal(
            Kind.FORBIDDEN,
            "clients may not load and unload models here: start the server with --model-control, "
            "or send it SIGHUP to load what changed",
        )
