"""How long batches take, for policies that go by time: the measured profile, and the pace lately.

Shared by the engine and replay.
"""

import math
from collections.abc import Sequence

import numpy as np

from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import ShapeProfile
from apparate_jax.errors import ConfigError
from apparate_jax.serve.engine_config import EngineConfig
from apparate_jax.serve.occupancy import Occupancy, Pace
from apparate_jax.serve.policies import Device, Timing, batch_shape, enough, untimed

MEMORY = 32
"""Batches of the largest shape in whose time arrivals are counted and the pace is remembered."""


def timing_of(
    latency: LatencyModel,
    sites: Sequence[int],
    batch_sizes: Sequence[int],
    quantile: float,
    pace: float = 1.0,
) -> Timing:
    """The timing of batches under a plan with these ramps.

    A batch may run with its ramps or as the single program: the slower of both counts. It ends when
    the original model's answer is there; an early one leaves before.

    Args:
        latency: From the profile.
        sites: Active sites.
        batch_sizes: Allowed shapes, ascending.
        quantile: Of how single runs spread around the median, 0..1; 1 is the slowest measured.
        pace: How many times as long as that batches take.
    """
    shapes = [batch_shape(max(n, 1), batch_sizes)[1] for n in range(batch_sizes[-1] + 1)]
    known = {
        shape: max(latency.vanilla_ms(shape), latency.total_ms(tuple(sites), shape))
        * spread_at(latency.profile.at(shape), quantile)
        * pace
        for shape in set(shapes)
    }
    seconds = np.maximum.accumulate([known[shape] / 1e3 for shape in shapes])
    by_count = tuple(seconds.tolist())
    handling_s = latency.profile.handling_ms / 1e3
    return Timing(tuple(shapes), by_count, handling_s, enough(by_count))


def spread_at(shape: ShapeProfile, quantile: float) -> float:
    """A quantile of single runs over their median, the next larger measured one; 1 if unknown.

    >>> spread_at(ShapeProfile(1, 10.0, 10.0, (), (), (), spread=(0.9, 1.0, 1.1, 1.5)), 0.75)
    1.1
    """
    if not shape.spread:
        return 1.0
    return shape.spread[max(0, int(np.ceil(quantile * len(shape.spread))) - 1)]


class Forecast:
    """What a policy is told of time: how long batches take, and what is on the device.

    For policies that do not ask for it nothing is kept.
    """

    def __init__(
        self,
        batch_sizes: Sequence[int],
        limit: int,
        latency: LatencyModel | None = None,
        quantile: float = 1.0,
    ) -> None:
        """Make a forecast for an idle device.

        Args:
            batch_sizes: Allowed shapes, ascending.
            limit: Batches that may be on the device at a time.
            latency: From the profile; None for policies that do not go by time.
            quantile: As in :func:`timing_of`.
        """
        self._sizes = tuple(batch_sizes)
        self._latency = latency
        self._quantile = quantile
        self._occupancy = Occupancy(limit)
        self._untimed = Device(limit=limit), untimed(self._sizes)
        self._came = 0.0, 0.0  # requests per second at that time
        slowest_ms = latency.vanilla_ms(self._sizes[-1]) if latency is not None else 1.0
        self._memory_s = MEMORY * slowest_ms / 1e3
        self._pace = Pace(self._memory_s)
        self._known: dict[tuple[tuple[int, ...], float], Timing] = {}

    def look(self, now_s: float, sites: tuple[int, ...]) -> tuple[Device, Timing]:
        """The device, and how long batches take with these ramps active."""
        if self._latency is None:
            return self._untimed
        pace = self._pace.at(now_s)
        device = self._occupancy.at(now_s, pace)._replace(coming_rps=self._rate(now_s))
        return device, self._timing(self._latency, sites, pace)

    def came(self, now_s: float) -> None:
        """A request came, whether or not it may wait."""
        if self._latency is not None:
            self._came = self._rate(now_s) + 1.0 / self._memory_s, now_s

    def _rate(self, now_s: float) -> float:
        rate, since_s = self._came
        return rate * math.exp(min(0.0, since_s - now_s) / self._memory_s)

    def begin(
        self, now_s: float, count: int, plan: tuple[int, ...], ran: tuple[int, ...], *, shadow: bool
    ) -> None:
        """A batch of ``count`` was handed over.

        Args:
            now_s: Seconds.
            count: Requests in it.
            plan: Sites of the plan in force.
            ran: Sites that the batch runs.
            shadow: Whether the heads of all other ramps follow.
        """
        if self._latency is None:
            return
        timing = self._timing(self._latency, plan)
        more_ms = self._latency.shadow_ms(ran, timing.shapes[count]) if shadow else 0.0
        seconds = timing.seconds[count] + more_ms / 1e3
        self._occupancy.begin(now_s + timing.handling_s, seconds)

    def end(self, now_s: float) -> None:
        """The oldest batch ran to its end."""
        ratio = None if self._latency is None else self._occupancy.end(now_s)
        if ratio is not None:
            self._pace.add(now_s, ratio)

    def _timing(self, latency: LatencyModel, sites: tuple[int, ...], pace: float = 1.0) -> Timing:
        known = self._known.get((sites, pace))
        if known is None:
            known = timing_of(latency, sites, self._sizes, self._quantile, pace)
            self._known[sites, pace] = known
        return known


def forecast_of(
    config: EngineConfig, batch_sizes: Sequence[int], latency: LatencyModel | None
) -> Forecast:
    """The forecast that an engine needs; of policies that do not go by time it keeps nothing.

    Raises:
        ConfigError: The policy goes by time, and there is no profile.
    """
    batching = config.batching
    if batching.timed and latency is None:
        raise ConfigError(
            f"batching by {batching.policy!r} goes by the measured profile: give latency="
        )
    known = latency if batching.timed else None
    return Forecast(batch_sizes, config.max_in_flight, known, batching.slo_quantile)
