"""Latency profiles of the traces, which are measured apart: recordings may be made beside others.

A new recording holds a profile that says that nothing was measured; replaying it would give NaN.
"""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from _traces_streams import MissingError

from apparate_jax.bench.recording import Recording, load
from apparate_jax.checkpoint import Checkpoint, load_checkpoint
from apparate_jax.core import Profile, ShapeProfile
from apparate_jax.serve import prepare
from apparate_jax.serve.profile import keep_profile, rested

UNMEASURED = "not measured"


def unmeasured(sites: int) -> Profile:
    """What stands in a recording until its profile is measured: every latency is NaN.

    Args:
        sites: How many the model has.
    """
    unknown = (math.nan,) * sites
    shape = ShapeProfile(1, math.nan, math.nan, (), unknown, unknown, math.nan)
    return Profile(UNMEASURED, UNMEASURED, (), (shape,))


def is_measured(recording: Recording) -> bool:
    """Whether a recording has a profile."""
    return recording.profile.device != UNMEASURED


def belongs(recording: Recording, checkpoint: Checkpoint) -> bool:
    """Whether a recording was made with these ramps: they say the same of held-out samples."""
    made, now = recording.validation, checkpoint.validation
    if made is None or now is None or recording.model != checkpoint.model.name:
        return False
    same = made.sites == now.sites and np.array_equal(made.rows, now.rows)
    return same and np.array_equal(made.errors, now.errors, equal_nan=True)


def measure(checkpoint: Path, traces: list[Path]) -> Profile:
    """Measure the latencies of a checkpoint here, and keep them in its recordings.

    Args:
        checkpoint: With ramps.
        traces: Recordings that were made with it.

    Raises:
        MissingError: One was made with other ramps; nothing is measured then.
    """
    loaded = load_checkpoint(checkpoint)
    for path in traces:
        if not belongs(load(path), loaded):
            raise MissingError(
                f"{path.name} was not recorded with the ramps that {checkpoint.name} has now: "
                "move it away, and record it again"
            )
    print(f"{checkpoint}: measuring, load average {os.getloadavg()[0]:.2f}", flush=True)
    service = prepare(loaded)
    profile = rested(service.programs, service.profile)
    service.programs.close()
    keep_profile(profile, checkpoint)
    for path in traces:
        save(replace(load(path), profile=profile), path)
    return profile


def save(recording: Recording, path: Path) -> None:
    """Write a recording, whole or not at all."""
    part = path.with_name(f".{path.name}")
    recording.save(part)
    part.replace(path)
