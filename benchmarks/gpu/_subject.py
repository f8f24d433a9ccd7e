"""What the parts measure: models of the zoo with random weights and random ramps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from _sizes import Size

from apparate_jax.core import Model
from apparate_jax.graph import Program, trace
from apparate_jax.models.zoo import from_zoo
from apparate_jax.ramps.heads import Ramp, choose_kind, head_kind
from apparate_jax.ramps.placement import evenly
from apparate_jax.serve.executables import Executables, Options
from apparate_jax.serve.programs import Programs

DEEPEST = 0.97


class WithOptions(Executables):
    """Executables that are compiled with further options of XLA."""

    def __init__(self, extra: dict[str, Any]) -> None:
        """Take the options."""
        super().__init__()
        self._extra = extra

    def get(
        self, run: Any, arguments: Any, options: Options = None, *args: Any, **named: Any
    ) -> Any:
        """The program of a function; see :meth:`Executables.get`."""
        chosen = {**(options or {}), **self._extra} or None
        return super().get(run, arguments, chosen, *args, **named)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A traced model with random weights."""

    model: Model
    program: Program

    def spaced(self, count: int) -> tuple[int, ...]:
        """At most so many sites that a ramp fits, evenly spaced by depth."""
        fit = [s for s in self.program.sites if s.depth <= DEEPEST and choose_kind(s, self.model)]
        chosen = evenly([site.depth for site in fit], min(count, len(fit)))
        return tuple(fit[position].index for position in chosen)

    def ramps(self, sites: Sequence[int]) -> list[Ramp]:
        """A linear ramp with random weights at each site."""
        rng = np.random.default_rng(0)
        made = []
        for site in (self.program.sites[index] for index in sites):
            kind = choose_kind(site, self.model)
            assert kind is not None  # sites are those that a ramp fits
            shape = (head_kind(kind, site.shape).width(site.shape), self.program.num_classes)
            kernel = (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
            params = {"kernel": jax.device_put(kernel), "bias": jax.numpy.zeros(shape[1])}
            made.append(Ramp(site.index, site.name, kind, params, agreement=0.0, temperature=1.0))
        return made

    def programs(
        self, sites: Sequence[int], batch: int, extra: dict[str, Any] | None = None
    ) -> Programs:
        """Programs for one batch shape with ramps at these sites; nothing is compiled yet."""
        executables = WithOptions(extra or {})
        ramps = self.ramps(sites)
        return Programs(self.program, self.model, ramps, (batch,), executables=executables)

    def inputs(self, batch: int) -> list[jax.Array]:
        """Inputs on the device."""
        placed: list[jax.Array] = jax.device_put(list(self.model.example_inputs(batch)))
        return placed


@lru_cache(maxsize=1)
def subject(name: str, dtype: str, changes: tuple[tuple[str, Any], ...]) -> Subject:
    """A model of the zoo; the last one is kept."""
    model = from_zoo(name, dtype=dtype, **dict(changes))
    return Subject(model, trace(model.apply, model.params, *model.example_inputs(1)))


def subject_of(size: Size, name: str) -> Subject:
    """A model of the suite in its dtype."""
    return subject(name, size.dtype, tuple(sorted(size.changes.get(name, {}).items())))


def is_cpu() -> bool:
    """Whether JAX runs on a CPU only."""
    return jax.default_backend() == "cpu"
