"""What nobody can beat: each input leaves at its earliest right site, and ramps cost nothing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.live import Answers
from apparate_jax.core import Model, Profile
from apparate_jax.data.dataset import Dataset
from apparate_jax.graph import Program
from apparate_jax.ramps.features import Progress, forward, make_layout
from apparate_jax.ramps.heads import Ramp, head_logits

BATCH = 8


def earliest_right(
    program: Program,
    model: Model,
    ramps: Sequence[Ramp],
    data: Dataset,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """The earliest site of each input whose ramp gives the original model's answer.

    Args:
        program: The traced model.
        model: Its description.
        ramps: Trained ramps, ascending by site.
        data: Inputs, read in order; nothing but the result is kept.
        progress: Called with examples done, in total, and what is done.

    Returns:
        i64[count], index of the earliest site whose ramp gives the original's answer; the number
        of sites where none does.
    """
    layout = make_layout(program, {ramp.site: ramp.kind for ramp in ramps})
    earliest = np.full(len(data), len(program.sites), np.int64)
    for rows, values in forward(program, model, data, layout, len(data), BATCH):
        answers = layout.logits(values).argmax(axis=1)
        for ramp, pooled in reversed(list(zip(ramps, layout.pooled(values), strict=True))):
            scores = np.asarray(head_logits(ramp.params, pooled, ramp.style))
            earliest[rows][scores.argmax(axis=1) == answers] = ramp.site
        if progress is not None:
            progress(rows.stop, len(data), "oracle")
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
