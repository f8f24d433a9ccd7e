"""The models that a frontend serves, found by name and version."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from apparate_jax.serve.inference.counted import model_statistics
from apparate_jax.serve.inference.describe import Description
from apparate_jax.serve.inference.refusals import Kind, Refusal
from apparate_jax.serve.inference.served import Served
from apparate_jax.serve.telemetry import Statistics


class Models(Protocol):
    """What frontends need to know of the models: a repository, or one like it."""

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
