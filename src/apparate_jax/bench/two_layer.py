"""Two-layer serving, as Tabi and FilterForward: a small model where it is sure, else the large.

A batch runs through the small model. Whoever's error is below one threshold, tuned once, is
answered; the others are put together, **the batch shrinks**, and the large model answers them in
the same turn. One device runs both, batches one after another. So easy inputs save the large
model's whole time, hard ones pay for both, and throughput rises with the share that is easy.

Sharp edges: whoever the small model answered is never seen by the large one, so in service nobody
knows how often it was wrong: agreement is known here because both were recorded.
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.comparison import Answers
from apparate_jax.bench.one_time import shared_threshold
from apparate_jax.bench.recording import Recording
from apparate_jax.bench.workload import Times
from apparate_jax.core import Profile
from apparate_jax.errors import DataError, QueueFullError
from apparate_jax.serve.batching import batch_shape
from apparate_jax.serve.engine import EngineConfig


class Small(NamedTuple):
    """What a small model answers to the N inputs of a large one's recording.

    Attributes:
        name: Of the small model.
        errors: f32[N], 1 - top probability.
        agrees: bool[N], whether its answer is the large model's.
        times_ms: Its latency by batch shape, the large model's shapes.
    """

    name: str
    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    times_ms: Mapping[int, float]

    def rows(self, rows: NDArray[np.int64]) -> "Small":
        """Some rows, in this order."""
        return self._replace(errors=self.errors[rows], agrees=self.agrees[rows])


def small_of(small: Recording, large: Recording) -> Small:
    """A small model that was recorded on the same rows.

    Raises:
        DataError: It was not, or its recording has no errors of the model itself.
    """
    if len(small) != len(large) or small.final_errors is None:
        raise DataError(
            f"{small.model} has {len(small)} rows and {large.model} {len(large)}: record the small "
            "model on the same data, with this version"
        )
    agrees: NDArray[np.bool_] = small.final_predictions == large.final_predictions
    times = {s.batch: small.profile.at(s.batch).vanilla_ms for s in large.profile.shapes}
    return Small(small.model, small.final_errors, agrees, times)


def prefix_of(recording: Recording, site: int) -> Small:
    """The model's own first layers up to a site, with its ramp, as if they were a small model.

    It was taught by the large model, which favours it; nothing that it computes is used again.

    Args:
        recording: Of the large model.
        site: One with a ramp.
    """
    column = recording.ramps.index(site)
    times = {}
    for shape in recording.profile.shapes:
        share = (shape.site_ms[site] + shape.ramp_ms[site]) / (shape.site_ms[-1] + shape.tail_ms)
        times[shape.batch] = shape.vanilla_ms * share
    name = f"up to {recording.site_names[site]}"
    return Small(name, recording.errors[:, column], recording.agrees[:, column], times)


def tune(sample: Small, eps: float) -> float:
    """The threshold that lets most inputs go with the small model's answer within a constraint."""
    one = np.ones(1, np.float32)
    return shared_threshold(sample.errors[:, None], sample.agrees[:, None], one, eps)


def serve(
    small: Small,
    threshold: float,
    profile: Profile,
    arrivals: Times,
    engine: EngineConfig,
) -> tuple[Answers, float]:
    """Serve arrivals; request ``i`` brings row ``i`` modulo their number.

    Args:
        small: What the small model answers.
        threshold: Below which error its answer is given.
        profile: The large model's latencies and batch shapes.
        arrivals: f64[n], seconds, ascending.
        engine: Batches under way at a time, and how many may wait.

    Returns:
        Answers, ``exits`` 0 for the small model and 1 for the large one; and when the last batch
        ended, in seconds.

    Raises:
        QueueFullError: More requests wait than the queue holds.
    """
    count, sizes = len(arrivals), tuple(shape.batch for shape in profile.shapes)
    rows = np.arange(count) % len(small.errors)
    sure = small.errors[rows] < np.float32(threshold)
    released, shapes = np.empty(count), np.empty(count, np.int32)
    times, head, free_s = arrivals.tolist(), 0, 0.0
    slots = [0.0] * engine.max_in_flight
    while head < count:
        formed_s = max(slots.pop(0), times[head])
        waiting = bisect_right(times, formed_s, head) - head
        if waiting > engine.queue_size:
            raise QueueFullError(f"more than {engine.queue_size} requests wait: take a lower rate")
        take, shape = batch_shape(waiting, sizes)
        batch = slice(head, head + take)
        start_s = max(formed_s + profile.handling_ms / 1e3, free_s)
        after_s = start_s + small.times_ms[shape] / 1e3
        rest = int(take - sure[batch].sum())
        free_s = after_s + (profile.at(rest).vanilla_ms / 1e3 if rest else 0.0)
        released[batch] = np.where(sure[batch], after_s, free_s)
        shapes[batch] = shape
        slots.append(free_s)
        head += take
    exits = np.where(sure, 0, 1).astype(np.int32)
    right: NDArray[np.bool_] = small.agrees[rows] | ~sure
    return Answers((released - arrivals) * 1e3, exits, right, shapes, arrivals), free_s
