"""What any set of active ramps costs and saves, from the profile of one.

The profile measures one active set end to end, and every stage and head alone. Pieces timed alone
say too much (each waits for the host), so they only share out what was measured end to end: a ramp
costs its share of what the profiled set adds to the original's time, and a site lies between the
profiled ones around it as its stages say. The profiled set itself is as it was measured, also where
stages run faster than the original in one piece, as convolutions do on some processors. Pure;
shared by control and replay.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Profile, ShapeProfile


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Latencies in ms at every batch shape, for any set of active sites.

    Attributes:
        profile: What was measured.
    """

    profile: Profile
    _known: dict[tuple[tuple[int, ...], int], tuple[float, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch shapes, ascending."""
        return tuple(shape.batch for shape in self.profile.shapes)

    def vanilla_ms(self, batch: int) -> float:
        """The original model as one program."""
        return self.profile.at(batch).vanilla_ms

    def answers_ms(self, sites: tuple[int, ...], batch: int) -> tuple[float, ...]:
        """From dispatch to each active ramp's answer, and to the original's (last)."""
        key = (sites, batch)
        if key not in self._known:
            self._known[key] = self._answers_ms(sites, self.profile.at(batch))
        return self._known[key]

    def total_ms(self, sites: tuple[int, ...], batch: int) -> float:
        """From dispatch to the original model's answer."""
        return self.answers_ms(sites, batch)[-1]

    def overhead_ms(self, sites: tuple[int, ...], batch: int) -> float:
        """What the ramps add to an answer that leaves at the end; at least 0."""
        return max(0.0, self.total_ms(sites, batch) - self.vanilla_ms(batch))

    def savings_ms(self, sites: tuple[int, ...], batch: int) -> tuple[float, ...]:
        """What an exit at each active ramp saves against the end; not increasing along them."""
        *answers, total = self.answers_ms(sites, batch)
        later = np.maximum.accumulate(np.asarray([0.0, *answers]))[1:]
        return tuple(np.maximum(total - later, 0.0).tolist())

    def shadow_ms(self, sites: tuple[int, ...], batch: int) -> float:
        """What it adds to a batch with ``sites`` active to run every other head as well."""
        shape = self.profile.at(batch)
        apart = max(0.0, shape.site_ms[-1] + shape.tail_ms - shape.vanilla_ms)
        return apart + sum(ms for s, ms in enumerate(shape.ramp_ms) if s not in sites)

    def pieces_ms(self, sites: tuple[int, ...], batch: int, hold: int) -> tuple[float, ...]:
        """What is behind so many ramps of a batch: stages and later heads, each waited for."""
        shape = self.profile.at(batch)
        ends = np.append(shape.site_ms, shape.site_ms[-1] + shape.tail_ms)
        first, later = sites[hold - 1], set(sites[hold:])
        pieces = []
        for site, took_ms in enumerate(np.diff(ends[first:]).tolist(), first + 1):
            pieces += [took_ms, shape.ramp_ms[site]] if site in later else [took_ms]
        return tuple(pieces)

    def rest_factor(self, idle_ms: float) -> float:
        """By how much a batch takes longer after the device was idle; 1 if that is not known."""
        idle, factors = self.profile.rest_ms, self.profile.rest_factors
        at = bisect_right(idle, idle_ms)
        if not idle or at == 0:
            return 1.0
        if at == len(idle):
            return factors[-1]
        share = (idle_ms - idle[at - 1]) / (idle[at] - idle[at - 1])
        return factors[at - 1] + share * (factors[at] - factors[at - 1])

    def costs_ms(self, batch: int) -> NDArray[np.float64]:
        """What each site's ramp adds to every answer behind it: f64[sites]."""
        return self._costs_ms(self.profile.at(batch))

    def _answers_ms(self, sites: tuple[int, ...], shape: ShapeProfile) -> tuple[float, ...]:
        if sites == self.profile.sites:
            return (*shape.release_ms, shape.total_ms)
        if not sites:
            return (shape.vanilla_ms,)
        chosen = list(sites)
        bare = self._bare_ms(shape)
        added = np.cumsum(self._costs_ms(shape)[chosen])
        releases = bare[chosen] + added
        return (*releases.tolist(), float(bare[-1] + added[-1]))

    def _bare_ms(self, shape: ShapeProfile) -> NDArray[np.float64]:
        """When each site is reached without any ramp, and the end (last): f64[sites + 1]."""
        alone = np.append(shape.site_ms, shape.site_ms[-1] + shape.tail_ms)
        active = list(self.profile.sites)
        if not active:
            return np.asarray(alone * (shape.vanilla_ms / alone[-1]), np.float64)
        added = np.cumsum(self._costs_ms(shape)[active])
        seen = np.append(shape.release_ms - added, shape.total_ms - added[-1])
        at = np.concatenate([[0.0], alone[active], alone[-1:]])
        when = np.maximum.accumulate(np.concatenate([[0.0], seen]))
        reached: NDArray[np.float64] = np.interp(alone, at, when)
        return reached

    def _costs_ms(self, shape: ShapeProfile) -> NDArray[np.float64]:
        alone = np.asarray(shape.ramp_ms, np.float64)
        active = list(self.profile.sites)
        if not active or alone[active].sum() <= 0:
            return alone
        added = max(0.0, shape.total_ms - shape.vanilla_ms)
        share: float = added / alone[active].sum()
        return alone * share
