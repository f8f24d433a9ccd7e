"""What nobody can beat: each input leaves at its earliest right site, and ramps cost nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.live import Answers
from apparate_jax.core import Model, Profile
from apparate_jax.graph import Program
from apparate_jax.ramps.features import Progress, collect_features
from apparate_jax.ramps.heads import Ramp, head_logits


def earliest_right(
    program: Program,
    model: Model,
    ramps: Sequence[Ramp],
    inputs: Sequence[NDArray[Any]],
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """The earliest site of each input whose ramp gives the original model's answer.

    Args:
        program: The traced model.
        model: Its description.
        ramps: Trained ramps, ascending by site.
        inputs: Arrays ``[count, ...]``.
        progress: Called with examples done, in total, and what is done.

    Returns:
        i64[count], index of the earliest site whose ramp gives the original's answer; the number
        of sites where none does.
    """
    kinds = {ramp.site: ramp.kind for ramp in ramps}
    features = collect_features(
        program, model, inputs, kinds, batch_size=8, max_bytes=2**32, progress=progress
    )
    answers = features.logits.argmax(axis=1)
    earliest = np.full(len(answers), len(program.sites), np.int64)
    for ramp, pooled in reversed(list(zip(ramps, features.pooled, strict=True))):
        agrees = np.asarray(head_logits(ramp.params, pooled)).argmax(axis=1) == answers
        earliest[agrees] = ramp.site
    return earliest


def oracle_latency_ms(
    vanilla: Answers, earliest: NDArray[np.int64], profile: Profile
) -> NDArray[np.float64]:
    """Latencies of the original model, had each answer left at its earliest right site.

    Args:
        vanilla: The original model's answers, in the order in which the inputs were sent.
        earliest: i64[n], per input, as :func:`earliest_right` gives it.
        profile: Time of each site per batch shape.

    Returns:
        f64[n]: each latency less what lies between its earliest right site and the end.
    """
    saved = np.zeros(len(vanilla.latency_ms))
    for shape in profile.shapes:
        # The measured times of atomic stages, brought to the time of the single program.
        times = np.append(shape.site_ms, shape.site_ms[-1])
        after = shape.vanilla_ms * (1.0 - times / times[-1])
        rows = vanilla.shape == shape.batch
        saved[rows] = after[earliest[rows]]
    return vanilla.latency_ms - saved
