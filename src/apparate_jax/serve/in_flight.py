"""A batch on the device: what is known of it until the original model has answered it too.

The dispatcher makes it and hands the packed answers over in order; the releaser alone changes it
from then on.
"""

import queue
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import FINAL, Answer, BatchRecord, ShadowAnswers
from apparate_jax.errors import EngineClosedError, NumericsError
from apparate_jax.ramps.answer import unpack_answer
from apparate_jax.serve.batching import Request
from apparate_jax.serve.route import Course


@dataclass(slots=True, eq=False)
class InFlight:
    """A batch of ``n`` inputs on the device, with ``R`` active ramps.

    Attributes:
        requests: The inputs, n of them.
        sites: Sites of the ramps that it runs.
        shape: Padded batch size.
        dispatched_s: When it was handed to the device, seconds of the engine's clock.
        shadow: Whether the heads of the inactive ramps follow the original's answer.
        hold: Ramps after which the rest is queued only once their answers were read; 0: at once.
        deferred: Whether everybody was answered by then, so that the rest has time.
        ended: Whether it ran to its end or was given up.
        rests_s: Since when what is left of it waits, once it is deferred.
        deferred_s: How long it has waited in all.
        course: Its programs, once it is on the device.
        answers: Packed answers as they are queued, or the error that ended the batch.
        released: bool[n], who has an answer.
        released_s: f64[n], since when.
        ready_s: When each ramp's answers were on the host, as they come.
        exits: i32[n], position of the ramp that answered, R for the original model.
        errors: f32[n, R].
        predictions: i32[n, R].
    """

    requests: list[Request]
    sites: tuple[int, ...]
    shape: int
    dispatched_s: float
    shadow: bool = False
    hold: int = 0
    deferred: bool = False
    ended: bool = False
    rests_s: float = 0.0
    deferred_s: float = 0.0
    course: Course | None = None
    answers: "queue.SimpleQueue[jax.Array | BaseException]" = field(
        default_factory=queue.SimpleQueue
    )
    ready_s: list[float] = field(default_factory=list)
    released: NDArray[np.bool_] = field(init=False)
    released_s: NDArray[np.float64] = field(init=False)
    exits: NDArray[np.int32] = field(init=False)
    errors: NDArray[np.float32] = field(init=False)
    predictions: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        size, ramps = len(self.requests), len(self.sites)
        self.released = np.zeros(size, np.bool_)
        self.released_s = np.zeros(size, np.float64)
        self.exits = np.full(size, ramps, np.int32)
        self.errors = np.empty((size, ramps), np.float32)
        self.predictions = np.empty((size, ramps), np.int32)


def next_answer(
    batch: InFlight,
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Wait for the next packed answer of a batch: error, label and logits of its real inputs."""
    answer = batch.answers.get()
    if isinstance(answer, BaseException):
        raise answer
    return unpack_answer(np.asarray(answer)[: len(batch.requests)])


def told(error: BaseException) -> Exception:
    """What those who wait are told: what ends a thread here is not to end theirs."""
    if isinstance(error, Exception):
        return error
    return EngineClosedError(f"the engine stopped: {error!r}")


def padded(rows: tuple[NDArray[Any], ...], shape: int) -> NDArray[Any]:
    """Stack examples and repeat the last one up to the batch shape."""
    batch = np.empty((shape, *rows[0].shape), rows[0].dtype)
    for i, row in enumerate(rows):
        batch[i] = row
    batch[len(rows) :] = rows[-1]
    return batch


def make_answer(
    row: Any,
    label: NDArray[np.int32],
    logits: NDArray[np.float32],
    error: NDArray[np.float32],
    name: str,
    depth: float,
) -> Answer:
    """The answer of one row, from a packed answer's parts, at the exit of this name and depth."""
    return Answer(int(label[row]), logits[row], float(error[row]), name, depth)


def confirm(
    batch: InFlight,
    finite: NDArray[np.bool_],
    label: NDArray[np.int32],
    logits: NDArray[np.float32],
    error: NDArray[np.float32],
) -> None:
    """Give the original's answers, from the parts of its packed one, to those who want both."""
    for row, request in enumerate(batch.requests):
        if request.final is not None and not request.final.done():
            if finite[row]:
                request.final.set_result(make_answer(row, label, logits, error, FINAL, 1.0))
            else:
                request.final.set_exception(not_finite(logits[row]))


def not_finite(logits: NDArray[np.float32]) -> NumericsError:
    """The error for an input whose logits f32[classes] are NaN or infinite."""
    return NumericsError(
        f"the model's logits for this input are not finite ({logits[:8].tolist()}): "
        "check the input's values and the model's weights"
    )


def make_record(
    batch: InFlight,
    finite: NDArray[np.bool_],
    label: NDArray[np.int32],
    finished_s: float,
    shadow: ShadowAnswers | None = None,
) -> BatchRecord:
    """The record of a batch, without inputs for which the model has no answer."""
    arrived = np.array([request.arrived_s for request in batch.requests])
    return BatchRecord(
        sites=batch.sites,
        shape=batch.shape,
        arrived_s=arrived[finite],
        dispatched_s=batch.dispatched_s,
        released_s=batch.released_s[finite],
        finished_s=finished_s,
        exits=batch.exits[finite],
        errors=batch.errors[finite],
        predictions=batch.predictions[finite],
        final_predictions=label[finite],
        lost=int(np.count_nonzero(batch.exits[~finite] < len(batch.sites))),
        shadow=shadow,
        ready_s=tuple(batch.ready_s),
        traces=_traces(batch, finite),
        deferred_s=batch.deferred_s,
    )


def _traces(batch: InFlight, finite: NDArray[np.bool_]) -> tuple[object | None, ...]:
    """Spans of the inputs that the model has an answer for; none at all where nobody traces."""
    traces = [request.trace for request in batch.requests]
    if not any(trace is not None for trace in traces):
        return ()
    return tuple(trace for trace, kept in zip(traces, finite, strict=True) if kept)


def shadow_answers(
    batch: InFlight, ramps: Collection[int], finite: NDArray[np.bool_]
) -> ShadowAnswers:
    """What all ramps say to a shadow batch, once its own answers have left.

    Args:
        batch: Its active ramps and the original's answer have been read.
        ramps: Sites with a trained ramp.
        finite: bool[n], inputs that the original model has an answer for.
    """
    columns = {s: (batch.errors[:, r], batch.predictions[:, r]) for r, s in enumerate(batch.sites)}
    for site in sorted(set(ramps) - set(batch.sites)):
        error, label, _ = next_answer(batch)
        columns[site] = error, label
    sites = tuple(sorted(columns))
    errors = np.stack([columns[site][0] for site in sites], axis=1)
    predictions = np.stack([columns[site][1] for site in sites], axis=1)
    return ShadowAnswers(sites, errors[finite], predictions[finite])
