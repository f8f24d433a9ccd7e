"""One pass of the frozen model caches what every ramp needs: pooled features and the answers.

The backbone never changes while ramps are trained, so it runs once per sample; training then sees
only small vectors. Pooling happens inside the compiled program: a site costs ``width`` numbers per
sample, not its whole value. The batch has one fixed shape; the last one is filled up by repeating
the last sample. While the device works on a batch, the one before it is copied and the next ones
are read (and decoded).

All features of a sample are one row of a table, its logits last: a minibatch is a few whole rows,
which is what a table on disk (:mod:`apparate_jax.ramps.cache`) reads well.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.data.ahead import ahead
from apparate_jax.data.dataset import Dataset
from apparate_jax.errors import DataError, NumericsError
from apparate_jax.graph import Program
from apparate_jax.ramps.cache import Announce, CacheSize, feature_cache
from apparate_jax.ramps.heads import head_kind, mask_position, pool

Progress = Callable[[int, int, str], None]
"""``progress(done, total, what)``."""

_BATCHES_AHEAD = 2

MIXED = 1e-3
"""Logits that change by more of their standard deviation with the rest of a batch depend on it."""


class Layout(NamedTuple):
    """Which columns of a row are whose: the pooled values of each site, then the logits.

    Attributes:
        sites: Indices of the sites, ascending.
        kinds: Head kind of each.
        widths: Width of each pooled value.
        classes: Width of the logits.
    """

    sites: tuple[int, ...]
    kinds: tuple[str, ...]
    widths: tuple[int, ...]
    classes: int

    @property
    def starts(self) -> tuple[int, ...]:
        """First column of each site, and of the logits."""
        return (0, *itertools.accumulate(self.widths))

    @property
    def numbers(self) -> int:
        """Columns in all."""
        return sum(self.widths) + self.classes

    def pooled(self, values: Any) -> tuple[Any, ...]:
        """Per site, the columns ``[..., width]`` of ``[..., numbers]``."""
        return tuple(values[..., a : a + w] for a, w in zip(self.starts, self.widths, strict=False))

    def logits(self, values: Any) -> Any:
        """The columns ``[..., classes]`` of ``[..., numbers]``."""
        return values[..., self.starts[-1] :]


def make_layout(program: Program, kinds: Mapping[int, str]) -> Layout:
    """The layout for these head kinds by site index.

    Raises:
        RampError: A kind that is unknown, or does not fit its site.
    """
    sites = tuple(sorted(kinds))
    shapes = [program.sites[site].shape for site in sites]
    widths = [head_kind(kinds[s], x).width(x) for s, x in zip(sites, shapes, strict=True)]
    return Layout(sites, tuple(kinds[s] for s in sites), tuple(widths), program.num_classes)


@dataclass(frozen=True, slots=True)
class Features:
    """Pooled values at sites, and the original model's logits.

    Attributes:
        layout: Which columns are whose.
        table: f32[samples, numbers], in memory or mapped from a file.
    """

    layout: Layout
    table: NDArray[np.float32]

    @property
    def sites(self) -> tuple[int, ...]:
        """Indices of the sites, ascending."""
        return self.layout.sites

    @property
    def kinds(self) -> tuple[str, ...]:
        """Head kind of each."""
        return self.layout.kinds

    @property
    def pooled(self) -> tuple[NDArray[np.float32], ...]:
        """Per site, f32[samples, width]: views of the table."""
        return self.layout.pooled(self.table)

    @property
    def logits(self) -> NDArray[np.float32]:
        """f32[samples, classes]: a view of the table."""
        logits: NDArray[np.float32] = self.layout.logits(self.table)
        return logits


@contextmanager
def collect_features(
    program: Program,
    model: Model,
    data: Dataset,
    kinds: Mapping[int, str],
    *,
    batch_size: int,
    max_bytes: int,
    samples: int | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Iterator[Features]:
    """Run the frozen model once over the data; the features last as long as the ``with`` block.

    Model and data are let go of after the pass: where nothing else holds them, they take no memory
    inside of the block.

    Args:
        program: The traced model.
        model: Its description; names the mask.
        data: Inputs.
        kinds: Head kind by site index.
        batch_size: Samples per call.
        max_bytes: Memory that the features may take at most.
        samples: How many rows of the data, from the first; all unless given.
        cache_dir: Keep the features in a file below this directory instead of in memory.
        progress: Called after each batch with samples done, samples in all and what is done.
        announce: Told in a line how large the features are, before the model runs; and after it,
            if what it says of an input depends on the batch.

    Raises:
        DataError: Data that does not fit the model, or has no rows.
        RampError: More features than ``max_bytes``, or no space for them.
        NumericsError: The model's logits or values are not finite; says for which rows.
    """
    count = len(data) if samples is None else samples
    check_inputs(program, data.rows(0, min(count, 1)))
    layout = make_layout(program, kinds)
    size = CacheSize(count, layout.numbers)
    with feature_cache(size, max_bytes=max_bytes, directory=cache_dir, announce=announce) as table:
        features = Features(layout, table)
        bad: list[list[int]] = [[] for _ in (*layout.sites, "logits")]
        run = compile_pass(program, model, layout, min(batch_size, count))
        for rows, values in forward(run, data, count):
            table[rows] = values
            _note_bad(bad, layout, rows.start, values)
            if progress is not None:
                progress(rows.stop, count, "running the original model")
        _check_finite(program, features, bad)
        if announce is not None:
            for line in _mixing(run, data, features):
                announce(line)
        del program, model, data, run
        yield features


class Pass(NamedTuple):
    """The frozen model, compiled for one batch size.

    Attributes:
        program: The traced model.
        size: Samples per call.
        run: ``run(*inputs) -> f32[size, numbers]``, as a :class:`Layout` has them.
    """

    program: Program
    size: int
    run: Callable[..., jax.Array]

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> jax.Array:
        """Run up to ``size`` rows, filled up by the last of them."""
        return self.run(*(_filled_up(x, self.size) for x in arrays))


def compile_pass(program: Program, model: Model, layout: Layout, size: int) -> Pass:
    """What :func:`forward` runs, ``size`` samples a call."""
    compiled = _compiled(program.rebatch(size), layout, mask_position(model))
    return Pass(program, size, compiled)


def forward(run: Pass, data: Dataset, count: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Run the frozen model over the first ``count`` rows, batch by batch.

    Yields:
        The rows of a batch, and their values f32[rows, numbers].

    Raises:
        DataError: Rows that do not fit the model, or cannot be read.
    """

    def read(start: int) -> tuple[slice, Sequence[NDArray[Any]]]:
        rows = slice(start, min(start + run.size, count))
        arrays = data.rows(rows.start, rows.stop)
        check_inputs(run.program, arrays)
        return rows, arrays

    waiting: tuple[slice, jax.Array] | None = None
    for rows, inputs in ahead(read, range(0, count, run.size), _BATCHES_AHEAD):
        queued = rows, run(inputs)
        if waiting is not None:
            yield _on_host(*waiting)
        waiting = queued
    if waiting is not None:
        yield _on_host(*waiting)


def _mixing(run: Pass, data: Dataset, features: Features) -> Iterator[str]:
    """A line if the logits of the first batch's first half change with the other half."""
    half = run.size // 2
    rows = [x[np.arange(run.size) % max(half, 1)] for x in data.rows(0, run.size)]
    with_copies = features.layout.logits(np.asarray(run(rows)))[:half]
    change = float(np.abs(with_copies - features.logits[:half]).max(initial=0))
    spread = float(np.std(features.logits))
    if change > MIXED * spread:
        yield (
            f"note: the logits of an input depend on the others in its batch (by {change:.2g}, "
            f"where logits spread by {spread:.2g}), so its answer does: see that batch norms are "
            "not in training mode, and that nothing else is taken over the batch axis"
        )


def _filled_up(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Exactly ``size`` rows: the last one again and again."""
    return values if len(values) == size else values[np.minimum(np.arange(size), len(values) - 1)]


def _on_host(rows: slice, values: jax.Array) -> tuple[slice, NDArray[np.float32]]:
    return rows, np.asarray(values)[: rows.stop - rows.start]


def check_inputs(program: Program, arrays: Sequence[NDArray[Any]]) -> None:
    """See that rows of the data fit the model.

    Raises:
        DataError: Not one array per input, no rows, or arrays of other shapes or dtypes.
    """
    if len(arrays) != len(program.input_shapes):
        raise DataError(
            f"{len(arrays)} arrays for a model of {len(program.input_shapes)} inputs: give one "
            "per input, in its order"
        )
    for position, (array, spec) in enumerate(zip(arrays, program.input_shapes, strict=True)):
        if array.shape[1:] != spec.shape[1:] or array.dtype != spec.dtype:
            got, wanted = (
                ", ".join(map(str, ("samples", *shape[1:]))) for shape in (array.shape, spec.shape)
            )
            raise DataError(
                f"input {position} is {array.dtype}[{got}], expected {spec.dtype}[{wanted}]"
            )
    counts = {len(array) for array in arrays}
    if len(counts) != 1 or 0 in counts:
        raise DataError(
            f"the inputs have {[len(a) for a in arrays]} samples, expected equal and not 0"
        )


def _compiled(program: Program, layout: Layout, mask: int | None) -> Callable[..., jax.Array]:
    body, constants = program.tap_body(layout.sites)

    def run(constants: Any, *inputs: jax.Array) -> jax.Array:
        *values, logits = body(constants, None, *inputs)
        marked = None if mask is None else inputs[mask]
        pooled = [pool(k, value, marked) for k, value in zip(layout.kinds, values, strict=True)]
        return jnp.concatenate([*pooled, logits.astype(jnp.float32)], axis=1)

    return partial(jax.jit(run, compiler_options=program.compiler_options or None), constants)


def _note_bad(
    bad: Sequence[list[int]], layout: Layout, first: int, values: NDArray[np.float32]
) -> None:
    """Add the rows of a batch that are not finite, per site and for the logits."""
    if np.isfinite(values).all():
        return
    for rows, part in zip(bad, (*layout.pooled(values), layout.logits(values)), strict=True):
        rows.extend((first + np.flatnonzero(~np.isfinite(part).all(axis=1))).tolist())


def _check_finite(program: Program, features: Features, bad: Sequence[list[int]]) -> None:
    *at_sites, of_logits = bad
    names = [f"values at {program.sites[s].name!r}" for s in features.sites]
    for place, rows in zip(("logits", *names), (of_logits, *at_sites), strict=True):
        if rows:
            raise NumericsError(
                f"the model's {place} are not finite for {len(rows)} of {len(features.table)} "
                f"samples (rows {rows[:8]}): check these inputs and the model's weights"
            )
