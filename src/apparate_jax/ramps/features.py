"""One pass of the frozen model caches what every ramp needs: pooled features and the answers.

The backbone never changes while ramps are trained, so it runs once per sample; training then sees
only small vectors. Pooling happens inside the compiled program: a site costs ``width`` numbers per
sample, not its whole value. The batch has one fixed shape; the last one is filled up by repeating
the last sample.

Sharp edges: features stay in host memory, 4 bytes x samples x the sum of widths; the caller says
how much that may be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.errors import DataError, NumericsError, RampError
from apparate_jax.graph import Program
from apparate_jax.ramps.heads import head_kind, mask_position, pool

Progress = Callable[[int, int, str], None]
"""``progress(done, total, what)``."""

_Batch = tuple[tuple[jax.Array, ...], jax.Array]


@dataclass(frozen=True, slots=True)
class Features:
    """Pooled values at sites, and the original model's logits.

    Attributes:
        sites: Indices of the sites, ascending.
        kinds: Head kind of each.
        pooled: Per site, f32[samples, width].
        logits: f32[samples, classes].
    """

    sites: tuple[int, ...]
    kinds: tuple[str, ...]
    pooled: tuple[NDArray[np.float32], ...]
    logits: NDArray[np.float32]


def collect_features(
    program: Program,
    model: Model,
    inputs: Sequence[NDArray[Any]],
    kinds: Mapping[int, str],
    *,
    batch_size: int,
    max_bytes: int,
    progress: Progress | None = None,
) -> Features:
    """Run the frozen model once over the data.

    Args:
        program: The traced model.
        model: Its description; names the mask.
        inputs: Arrays ``[samples, ...]``, one per model input.
        kinds: Head kind by site index.
        batch_size: Samples per call.
        max_bytes: Memory that the features may take at most.
        progress: Called after each batch with samples done, samples in all and what is done.

    Raises:
        DataError: Arrays that do not fit the model.
        RampError: More features than ``max_bytes``.
        NumericsError: The model's logits or values are not finite; says for which rows.
    """
    count = check_inputs(program, inputs)
    features = _allocate(program, kinds, count, max_bytes)
    size = min(batch_size, count)
    forward = jax.jit(_forward(program.rebatch(size), features, mask_position(model)))
    ahead: tuple[slice, _Batch] | None = None
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        queued = slice(start, min(start + size, count)), forward(*(x[rows] for x in inputs))
        # The device works on this batch while the one before it is copied.
        if ahead is not None:
            _store(features, *ahead, progress)
        ahead = queued
    if ahead is not None:
        _store(features, *ahead, progress)
    _check_finite(program, features)
    return features


def check_inputs(program: Program, inputs: Sequence[NDArray[Any]]) -> int:
    """The number of samples.

    Raises:
        DataError: Not one array per input, or arrays of other lengths, shapes or dtypes.
    """
    if len(inputs) != len(program.input_shapes):
        raise DataError(
            f"{len(inputs)} arrays for a model of {len(program.input_shapes)} inputs: give one "
            "per input, in its order"
        )
    for position, (array, spec) in enumerate(zip(inputs, program.input_shapes, strict=True)):
        if array.shape[1:] != spec.shape[1:] or array.dtype != spec.dtype:
            wanted = ", ".join(map(str, ("samples", *spec.shape[1:])))
            raise DataError(
                f"input {position} is {array.dtype}{list(array.shape)}, expected "
                f"{spec.dtype}[{wanted}]"
            )
    counts = {len(array) for array in inputs}
    if len(counts) != 1 or 0 in counts:
        raise DataError(
            f"the inputs have {[len(a) for a in inputs]} samples, expected equal and not 0"
        )
    return counts.pop()


def _allocate(program: Program, kinds: Mapping[int, str], count: int, max_bytes: int) -> Features:
    sites = tuple(sorted(kinds))
    shapes = [program.sites[site].shape for site in sites]
    chosen = [head_kind(kinds[s], shape) for s, shape in zip(sites, shapes, strict=True)]
    widths = [kind.width(shape) for kind, shape in zip(chosen, shapes, strict=True)]
    needed = 4 * count * (sum(widths) + program.num_classes)
    if needed > max_bytes:
        raise RampError(
            f"the pooled features of {count} samples at {len(sites)} sites take "
            f"{needed / 2**20:.0f} MiB, at most {max_bytes / 2**20:.0f} MiB are allowed: use a "
            "smaller share of the data (data_frac), or allow more (max_cache_bytes)"
        )
    return Features(
        sites,
        tuple(kinds[site] for site in sites),
        tuple(np.empty((count, width), np.float32) for width in widths),
        np.empty((count, program.num_classes), np.float32),
    )


def _forward(program: Program, features: Features, mask: int | None) -> Callable[..., _Batch]:
    taps = program.taps(features.sites)

    def run(*inputs: jax.Array) -> _Batch:
        values, logits = taps(*inputs)
        marked = None if mask is None else inputs[mask]
        pooled = [pool(k, value, marked) for k, value in zip(features.kinds, values, strict=True)]
        return tuple(pooled), logits.astype(jnp.float32)

    return run


def _store(features: Features, rows: slice, batch: _Batch, progress: Progress | None) -> None:
    values, logits = batch
    size = rows.stop - rows.start
    for table, value in zip((*features.pooled, features.logits), (*values, logits), strict=True):
        table[rows] = np.asarray(value)[:size]
    if progress is not None:
        progress(rows.stop, len(features.logits), "running the original model")


def _check_finite(program: Program, features: Features) -> None:
    places = ["logits", *(f"values at {program.sites[s].name!r}" for s in features.sites)]
    for place, table in zip(places, (features.logits, *features.pooled), strict=True):
        bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if len(bad):
            raise NumericsError(
                f"the model's {place} are not finite for {len(bad)} of {len(table)} samples "
                f"(rows {bad[:8].tolist()}): check these inputs and the model's weights"
            )
