"""Ramps of equal width, stacked, and the standardisation of their features.

Ramps whose pooled values have the same width are one batched problem. Their features are
standardised by the mean and the standard deviation over the training samples, which are summed over
slices of the table in float64: nothing of the table's size is made.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from apparate_jax.ramps.features import Features, Layout

_SLICE = 256
"""Rows that are summed at a time."""


class Group(NamedTuple):
    """Ramps of one width.

    Attributes:
        members: Positions of the ramps in the layout's order.
        mean: f32[ramps, width] of the training samples.
        inverse_std: f32[ramps, width], 0 where a feature does not vary.
    """

    members: tuple[int, ...]
    mean: NDArray[np.float32]
    inverse_std: NDArray[np.float32]


class Scale(NamedTuple):
    """Standardisation of one group on the device: f32[ramps, 1, width] each."""

    mean: jax.Array
    inverse_std: jax.Array


def by_width(layout: Layout) -> tuple[tuple[int, ...], ...]:
    """Positions of the ramps of each width."""
    found: dict[int, list[int]] = {}
    for position, width in enumerate(layout.widths):
        found.setdefault(width, []).append(position)
    return tuple(map(tuple, found.values()))


def make_groups(features: Features, rows: Int[np.ndarray, " train"]) -> tuple[Group, ...]:
    """Stack ramps of equal width.

    Args:
        features: Of all samples.
        rows: Samples to train on, whose mean and deviation are used.
    """
    mean, std = _moments(features.table, rows)
    means, stds = features.layout.pooled(mean), features.layout.pooled(std)
    groups = []
    for members in by_width(features.layout):
        centre = np.stack([means[m] for m in members]).astype(np.float32)
        spread = np.stack([stds[m] for m in members])
        # What varies by rounding only would be blown up to unit size, and dominate on other data.
        varies = spread > 1e-6 * (np.abs(centre) + spread.mean(axis=1, keepdims=True))
        inverse = np.where(varies, 1.0 / np.where(varies, spread, 1.0), 0.0).astype(np.float32)
        groups.append(Group(members, centre, inverse))
    return tuple(groups)


def _moments(
    table: NDArray[np.float32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column over some rows: f64[numbers] each."""
    slices = [rows[at : at + _SLICE] for at in range(0, len(rows), _SLICE)]
    total = np.zeros(table.shape[1])
    for part in slices:
        total += table[part].sum(axis=0, dtype=np.float64)
    mean = total / len(rows)
    squares = np.zeros(table.shape[1])
    for part in slices:
        squares += np.square(table[part] - mean).sum(axis=0)
    return mean, np.sqrt(squares / len(rows))


def scales(groups: Sequence[Group]) -> list[Scale]:
    """The groups' standardisations on the device."""
    return [
        Scale(jnp.asarray(g.mean)[:, None], jnp.asarray(g.inverse_std)[:, None]) for g in groups
    ]


def standardised(layout: Layout, values: Any, scaling: Sequence[Scale]) -> list[jax.Array]:
    """Standardised features of each group: f32[ramps, samples, width].

    Args:
        layout: Of the table.
        values: Rows of the table, f32[samples, numbers].
        scaling: From :func:`scales`.
    """
    pooled = layout.pooled(values)
    return [
        (jnp.stack([pooled[m] for m in members]) - scale.mean) * scale.inverse_std
        for members, scale in zip(by_width(layout), scaling, strict=True)
    ]
