"""What nobody can beat: each input leaves at its earliest right site, and ramps cost nothing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.comparison import Answers
from apparate_jax.bench.record import answer_all
from apparate_jax.core import Model, Profile
from apparate_jax.data.dataset import Dataset
from apparate_jax.graph import Program
from apparate_jax.ramps.features import Progress
from apparate_jax.ramps.heads import Ramp


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
    sites, count = [ramp.site for ramp in ramps], len(program.sites)
    earliest = np.full(len(data), count, np.int64)
    for part in answer_all(program, model, ramps, data, progress):
        found = earliest_site(sites, count, part.predictions, part.final_predictions)
        earliest[part.rows] = found
    return earliest


def earliest_site(
    ramps: Sequence[int], sites: int, predictions: NDArray[np.int32], answers: NDArray[np.int32]
) -> NDArray[np.int64]:
    """The earliest site of each of ``n`` inputs whose ramp gives the original's answer.

    Args:
        ramps: Sites with a ramp, S of them, ascending.
        sites: How many sites there are; stands for the end.
        predictions: i32[n, S].
        answers: i32[n], the original's.

    Returns:
        i64[n].
    """
    right = np.ones((len(answers), len(ramps) + 1), np.bool_)
    right[:, :-1] = predictions == answers[:, None]
    earliest: NDArray[np.int64] = np.asarray([*ramps, sites], np.int64)[right.argmax(axis=1)]
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
        times = np.append(shape.site_ms, shape.site_ms[-1] + shape.tail_ms)
        after = shape.vanilla_ms * (1.0 - times / times[-1])
        rows = vanilla.shape == shape.batch
        saved[rows] = after[earliest[rows]]
    return vanilla.latency_ms - saved
