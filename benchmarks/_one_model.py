"""One engine under one name, for benchmarks and tests of what stands in front of it."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from apparate_jax.serve.inference import Answering, Kind, Refusal, Served
from apparate_jax.serve.inference.served import DEFAULT_VERSION, MAX_ROWS
from apparate_jax.serve.telemetry import Statistics


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

    def index(self) -> list[dict[str, Any]]:
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
