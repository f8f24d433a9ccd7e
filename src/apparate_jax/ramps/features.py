"""One pass of the frozen model caches what every ramp needs: pooled features and the answers.

The backbone never changes while ramps are trained, so it runs once per example; training then sees
only small vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.errors import DataError, NumericsError
from apparate_jax.graph import Program
from apparate_jax.ramps.heads import pool

Progress = Callable[[int, int], None]
"""``progress(done, total)`` in examples."""


@dataclass(frozen=True, slots=True)
class Features:
    """Pooled values at sites, and the original model's logits.

    Attributes:
        sites: Site indices.
        kinds: Head kind per site.
        pooled: One f32[count, width] per site.
        logits: f32[count, classes].
    """

    sites: tuple[int, ...]
    kinds: tuple[str, ...]
    pooled: tuple[NDArray[np.float32], ...]
    logits: NDArray[np.float32]


def collect(
    program: Program,
    model: Model,
    kinds: dict[int, str],
    inputs: Sequence[NDArray[Any]],
    *,
    batch: int = 8,
    progress: Progress | None = None,
) -> Features:
    """Run the frozen model over data and keep what ramps are trained on.

    Args:
        program: The traced model.
        model: Its description; names the mask.
        kinds: Head kind by site index.
        inputs: Arrays ``[count, ...]`` in the model's order.
        batch: Examples at a time.
        progress: Called after each batch.

    Raises:
        DataError: If there are no examples.
        NumericsError: If the model's logits are not finite; says for which rows.
    """
    count = len(inputs[0]) if inputs else 0
    if count == 0:
        raise DataError("no examples to train ramps on")
    sites = tuple(sorted(kinds))
    names = [spec.name for spec in model.inputs]
    mask_at = names.index(model.mask) if model.mask is not None else None
    taps = program.rebatch(batch).taps(sites)

    @jax.jit
    def forward(*batch_inputs: Any) -> Any:
        values, logits = taps(*batch_inputs)
        mask = batch_inputs[mask_at] if mask_at is not None else None
        pooled = [pool(kinds[s], v, mask) for s, v in zip(sites, values, strict=True)]
        return pooled, logits.astype(jax.numpy.float32)

    pooled: list[list[NDArray[np.float32]]] = [[] for _ in sites]
    logits: list[NDArray[np.float32]] = []
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        real = min(batch, count - start)
        values, answers = forward(*(x[rows] for x in inputs))
        logits.append(np.asarray(answers)[:real])
        for column, value in zip(pooled, values, strict=True):
            column.append(np.asarray(value)[:real])
        if progress is not None:
            progress(start + real, count)
    answers = np.concatenate(logits)
    _check_finite(answers)
    return Features(
        sites,
        tuple(kinds[s] for s in sites),
        tuple(np.concatenate(column) for column in pooled),
        answers,
    )


def _check_finite(logits: NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise NumericsError(
            f"the model's logits are not finite for {len(bad)} of {len(logits)} examples "
            f"(rows {bad[:8].tolist()}): check these inputs and the model's weights"
        )
