"""Record what every ramp and the original model answer to a stream of inputs, for replay.

One pass of the frozen model over the data; heads and errors are the ones that serve
(:mod:`apparate_jax.ramps.heads`, :mod:`apparate_jax.ramps.answer`), applied to what the pass pools.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from apparate_jax.bench.recording import Part, Recording
from apparate_jax.core import Model, Profile
from apparate_jax.data.dataset import Dataset
from apparate_jax.errors import DataError, NumericsError
from apparate_jax.graph import Program
from apparate_jax.ramps.answer import answer_entropy, answer_error, pack_answer, unpack_answer
from apparate_jax.ramps.features import Progress, compile_pass, forward, make_layout
from apparate_jax.ramps.heads import Ramp, head_logits
from apparate_jax.ramps.train import Validation
from apparate_jax.serve.profile import device_name

BATCH = 8


class Answered(NamedTuple):
    """What S ramps and the original model answer to the ``n`` inputs of a batch.

    Attributes:
        rows: Of the data, n of them.
        errors: f32[n, S].
        predictions: i32[n, S].
        final_predictions: i32[n]; -1 where the original's logits are not finite.
        entropies: f32[n, S], normalised to 0..1.
        final_errors: f32[n], the original's.
    """

    rows: slice
    errors: NDArray[np.float32]
    predictions: NDArray[np.int32]
    final_predictions: NDArray[np.int32]
    entropies: NDArray[np.float32]
    final_errors: NDArray[np.float32]


def answer_all(
    program: Program,
    model: Model,
    ramps: Sequence[Ramp],
    data: Dataset,
    progress: Progress | None = None,
) -> Iterator[Answered]:
    """Run the model with all ramps over the data, batch by batch; nothing is kept.

    Args:
        program: The traced model.
        model: Its description.
        ramps: Trained ramps, ascending by site.
        data: Inputs, read in order.
        progress: Called with examples done, in total, and what is done.
    """
    layout = make_layout(program, {ramp.site: ramp.kind for ramp in ramps})
    styles = [ramp.style for ramp in ramps]

    @jax.jit
    def heads(params: list[dict[str, jax.Array]], pooled: list[jax.Array]) -> list[jax.Array]:
        given = zip(params, pooled, styles, strict=True)
        return [pack_answer(head_logits(p, x, style)) for p, x, style in given]

    params = [dict(ramp.params) for ramp in ramps]
    run = compile_pass(program, model, layout, min(BATCH, len(data)))
    for rows, values in forward(run, data, len(data)):
        packed = heads(params, list(layout.pooled(values)))
        yield _answered(rows, [np.asarray(p) for p in packed], layout.logits(values))
        if progress is not None:
            progress(rows.stop, len(data), "running all ramps")


def _answered(
    rows: slice, packed: Sequence[NDArray[np.float32]], logits: NDArray[np.float32]
) -> Answered:
    errors = np.empty((len(logits), len(packed)), np.float32)
    predictions = np.empty((len(logits), len(packed)), np.int32)
    entropies = np.empty((len(logits), len(packed)), np.float32)
    with np.errstate(invalid="ignore"):  # logits that are not finite have a NaN
        for column, answer in enumerate(packed):
            errors[:, column], predictions[:, column], scores = unpack_answer(answer)
            entropies[:, column] = np.asarray(answer_entropy(jnp.asarray(scores)))
    finite = np.isfinite(logits).all(axis=1)
    final = np.where(finite, logits.argmax(axis=1), -1).astype(np.int32)
    own = np.asarray(answer_error(jnp.asarray(logits)))
    return Answered(rows, errors, predictions, final, entropies, own)


def record(
    program: Program,
    model: Model,
    ramps: Sequence[Ramp],
    data: Dataset,
    profile: Profile,
    progress: Progress | None = None,
    validation: Validation | None = None,
) -> Recording:
    """Record a stream: what every ramp and the original model answer to each row.

    Args:
        program: The traced model.
        model: Its description.
        ramps: Trained ramps, ascending by site.
        data: Inputs, read in order.
        profile: Latencies to replay with, of the device and the active ramps that it names.
        progress: Called with examples done, in total, and what is done.
        validation: What these ramps said about the samples that their training held out.

    Raises:
        NumericsError: The model's logits for an input are not finite.
        DataError: Data that does not fit the model, or has no rows.
    """
    if len(data) == 0:
        raise DataError(f"{data.name} has no rows: nothing to record")
    parts = list(answer_all(program, model, ramps, data, progress))
    final = np.concatenate([part.final_predictions for part in parts])
    bad = np.flatnonzero(final < 0)
    if bad.size:
        raise NumericsError(
            f"the model's logits for this input are not finite ({bad.size} of {len(final)} rows: "
            f"{bad[:8].tolist()}): check the inputs' values and the model's weights"
        )
    labels = data.labels
    return Recording(
        model=model.name,
        workload=data.name,
        site_names=tuple(site.name for site in program.sites),
        depths=tuple(site.depth for site in program.sites),
        ramps=tuple(ramp.site for ramp in ramps),
        errors=np.concatenate([p.errors for p in parts]),
        predictions=np.concatenate([p.predictions for p in parts]),
        final_predictions=final,
        entropies=np.concatenate([p.entropies for p in parts]),
        final_errors=np.concatenate([p.final_errors for p in parts]),
        labels=None if labels is None else np.asarray(labels, np.int32),
        parts=(Part(data.name, 0),),
        profile=profile,
        device=device_name(),
        jax_version=jax.__version__,
        validation=validation,
        ramp_bytes=tuple(ramp.num_bytes for ramp in ramps),
    )
