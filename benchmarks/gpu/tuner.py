"""The tuner and the joint choice of ramps on the device, against the host's processor.

The library tunes on the host, so that tuning never queues behind batches. Here the same searches
also run on the device, idle, in turns with the host: what moving them there could gain.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import jax
import numpy as np
from _common import paired
from _sizes import Size
from _subject import is_cpu
from numpy.typing import NDArray

from apparate_jax.control import subsets, thresholds

SHARE = 0.01
ALWAYS_AT_MOST = 30
"""Rounds: a search takes milliseconds."""


def window(samples: int, ramps: int) -> tuple[NDArray[Any], ...]:
    """Errors f32[N, R], agreements bool[N, R] and savings f32[R] of ramps that get surer."""
    rng = np.random.default_rng(0)
    hardness = rng.random((samples, 1)) * np.linspace(1.0, 0.3, ramps)
    errors = np.clip(0.5 * hardness + rng.normal(0, 0.08, (samples, ramps)), 0, 0.5)
    agrees = rng.random((samples, ramps)) > 0.5 * hardness**2
    return errors.astype(np.float32), agrees, np.linspace(10.0, 1.0, ramps).astype(np.float32)


def on(device: jax.Device, search: Callable[[], Any]) -> Any:
    """Run a search there."""
    with ExitStack() as there:
        for module in (thresholds, subsets):
            there.enter_context(mock.patch.object(module, "host", lambda: device))
        return search()


def measure(size: Size, search: Callable[[], Any]) -> dict[str, Any]:
    """Milliseconds on each, and the host's time over the device's."""
    devices = {"host": jax.local_devices(backend="cpu")[0]}
    if not is_cpu():
        devices["device"] = jax.local_devices()[0]
    fns = {name: partial(on, device, search) for name, device in devices.items()}
    times = paired(fns, min(size.rounds, ALWAYS_AT_MOST))
    row: dict[str, Any] = {
        f"{name}_ms": round(float(np.median(t)) * 1e3, 3) for name, t in times.items()
    }
    if is_cpu():
        return {**row, "device": "not applicable: the host is the device"}
    return {**row, "host_over_device": round(float(np.median(times["host"] / times["device"])), 3)}


def cases(size: Size) -> dict[str, Any]:
    """Thresholds of up to three ramps, else the joint choice of at most three."""
    found: dict[str, Any] = {}
    for samples, sites in size.windows:
        data = window(samples, sites)
        budget = thresholds.budget_for(SHARE, samples)
        if sites <= 3:
            search = partial(thresholds.tune_thresholds, *data, SHARE, "exact")
            found[f"thresholds, {samples} samples, {sites} ramps"] = partial(measure, size, search)
        else:
            costs = np.full(sites, 0.2)
            search = partial(subsets.choose_ramps, *data, costs, samples, budget, max_ramps=3)
            found[f"at most 3 of {sites}, {samples} samples"] = partial(measure, size, search)
    return found
