"""Train the heads of all ramps at once on cached features.

A head is multinomial logistic regression on standardised features, towards the original model's
probabilities or its label; with another style than ``linear``, a hidden layer comes before it.
Ramps do not depend on one another (nothing exits in training), so those of equal width are stacked
into one batched problem, and groups of other widths share the compiled step. AdamW acts element by
element, so this equals training each ramp alone.

Every ramp keeps the parameters of its own best epoch on the validation samples; training ends when
none has improved for ``patience`` epochs. Kernels of logits start at zero: the only randomness is
the order of the samples and the start of hidden layers, which are seeded.

A minibatch is gathered from the table of features when its turn comes, so the table may be a file
and no second copy of it is made.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from apparate_jax.ramps.calibrate import fold
from apparate_jax.ramps.config import TrainConfig
from apparate_jax.ramps.features import Features, Layout, Progress
from apparate_jax.ramps.groups import Group, Scale, make_groups, scales, standardised
from apparate_jax.ramps.heads import head_style

Params = dict[str, jax.Array]
"""Of one group: as :data:`~apparate_jax.ramps.heads.RampParams`, with a leading axis of ramps."""

# Steps of an epoch at least: few samples would otherwise be learnt too slowly for `patience`.
_LEAST_STEPS = 8

# An improvement below this does not keep training going.
_MATERIAL_NATS = 1e-4


class Fitted(NamedTuple):
    """Trained heads, on standardised features.

    Attributes:
        features: That they were trained on.
        groups: Each group with its trained parameters.
        losses: f32[epochs, 2, ramps], training and validation loss in nats.
        style: Of the heads.
    """

    features: Features
    groups: tuple[tuple[Group, Params], ...]
    losses: NDArray[np.float32]
    style: str

    def logits(self, ramp: int, rows: Int[np.ndarray, " samples"]) -> jax.Array:
        """Logits of one ramp for some samples, before calibration: f32[samples, classes]."""
        group, params = next(pair for pair in self.groups if ramp in pair[0].members)
        at = group.members.index(ramp)
        raw = self.features.pooled[ramp][rows]
        values = (raw - group.mean[at]) * group.inverse_std[at]
        # Cut by NumPy: JAX compiles a program for every position.
        own = {name: np.asarray(value)[at : at + 1] for name, value in params.items()}
        logits: jax.Array = _compiled_logits(own, values[None], self.style)[0]
        return logits

    def folded(self, temperatures: Float[Array, " ramps"]) -> list[Params]:
        """The parameters of each ramp, for raw features and calibrated."""
        found: dict[int, Params] = {}
        for group, params in self.groups:
            heat = temperatures[np.asarray(group.members)]
            ready = jax.device_get(
                _compiled_fold(
                    params, jnp.asarray(group.mean), jnp.asarray(group.inverse_std), heat
                )
            )
            for row, position in enumerate(group.members):
                found[position] = {name: jnp.asarray(value[row]) for name, value in ready.items()}
        return [found[position] for position in sorted(found)]


class _Moving(NamedTuple):
    params: list[Params]
    optimizer: Any


class _Best(NamedTuple):
    params: list[Params]
    loss: list[jax.Array]


def fit_heads(
    features: Features,
    train_rows: Int[np.ndarray, " train"],
    valid_rows: Int[np.ndarray, " valid"],
    config: TrainConfig,
    progress: Progress | None = None,
) -> Fitted:
    """Train the heads of all ramps together.

    Args:
        features: Of all samples, with the original model's logits.
        train_rows: Samples to train on.
        valid_rows: Samples to validate on.
        config: Settings of the optimiser.
        progress: Called after each epoch.
    """
    layout, groups = features.layout, make_groups(features, train_rows)
    scaling = scales(groups)
    moving, best = _start(groups, layout.classes, config)
    rng = np.random.default_rng(config.seed)
    size = min(config.minibatch, max(1, len(train_rows) // _LEAST_STEPS))
    order = np.argsort([m for g in groups for m in g.members])
    losses: list[NDArray[np.float32]] = []
    since = 0
    while len(losses) < config.max_epochs and since < config.patience:
        trained = []
        for rows in _minibatches(train_rows, size, rng):
            moving, each = _step(config, layout, moving, scaling, features.table[rows])
            trained.append(each)
        checked = _validate(config, layout, moving.params, scaling, features.table, valid_rows)
        best, improved = _keep_best(best, moving.params, checked)
        sides = ([jnp.stack(loss).mean(axis=0) for loss in zip(*trained, strict=True)], checked)
        losses.append(np.stack([np.concatenate(side)[order] for side in sides]))
        since = 0 if bool(improved) else since + 1
        if progress is not None:
            ended = since >= config.patience
            done = config.max_epochs if ended else len(losses)
            progress(done, config.max_epochs, "training ramps")
    pairs = tuple(zip(groups, best.params, strict=True))
    return Fitted(features, pairs, np.stack(losses), config.style)


def _minibatches(
    rows: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Whole minibatches of the rows in a random order; what is left over is not used."""
    shuffled = rows[rng.permutation(len(rows))]
    return iter(shuffled[: len(rows) // size * size].reshape(-1, size))


def _optimizer(config: TrainConfig) -> optax.GradientTransformation:
    def is_kernel(params: list[Params]) -> list[dict[str, bool]]:
        return [{name: name.endswith("kernel") for name in group} for group in params]

    return optax.adamw(config.learning_rate, weight_decay=config.weight_decay, mask=is_kernel)


def _start(groups: Sequence[Group], classes: int, config: TrainConfig) -> tuple[_Moving, _Best]:
    params = [_first_params(g, classes, config) for g in groups]
    worst = [jnp.full(len(g.members), jnp.inf) for g in groups]
    # A step takes over its parameters' memory: the best ones are arrays of their own.
    best = _Best(jax.tree.map(jnp.copy, params), worst)
    return _Moving(params, _optimizer(config).init(params)), best


def _first_params(group: Group, classes: int, config: TrainConfig) -> Params:
    ramps, width = group.mean.shape
    units = head_style(config.style).units(width)
    params: Params = {}
    if units:
        # One draw for all: a ramp learns the same, whichever others are trained beside it.
        drawn = jax.random.normal(jax.random.key(config.seed), (width, units)) / width**0.5
        params["hidden_kernel"] = jnp.broadcast_to(drawn, (ramps, width, units))
        params["hidden_bias"] = jnp.zeros((ramps, units))
    params["kernel"] = jnp.zeros((ramps, units or width, classes))
    params["bias"] = jnp.zeros((ramps, classes))
    return params


def _logits(params: Params, features: Any, style: str) -> jax.Array:
    if "hidden_kernel" in params:
        hidden = jnp.einsum("rnw,rwu->rnu", features, params["hidden_kernel"])
        features = head_style(style).activation(hidden + params["hidden_bias"][:, None])
    return jnp.einsum("rnw,rwc->rnc", features, params["kernel"]) + params["bias"][:, None]


_compiled_logits = jax.jit(_logits, static_argnums=2)
_compiled_fold = jax.jit(fold)


def _targets(config: TrainConfig, logits: jax.Array) -> jax.Array:
    """What ramps learn, f32[samples, classes]: the original's probabilities, or its label."""
    if config.soft_targets:
        return jax.nn.softmax(logits, axis=-1)
    return jax.nn.one_hot(logits.argmax(axis=-1), logits.shape[-1])


def _divergence(
    config: TrainConfig,
    layout: Layout,
    params: list[Params],
    scaling: Sequence[Scale],
    values: jax.Array,
) -> list[jax.Array]:
    """Kullback-Leibler divergence from the targets in nats, per group f32[ramps, samples]."""
    targets = _targets(config, layout.logits(values))
    entropy = jax.scipy.special.xlogy(targets, targets).sum(axis=-1)
    found = []
    for own, x in zip(params, standardised(layout, values, scaling), strict=True):
        scores = jax.nn.log_softmax(_logits(own, x, config.style), axis=-1)
        found.append(entropy - (targets * scores).sum(axis=-1))
    return found


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _step(
    config: TrainConfig,
    layout: Layout,
    moving: _Moving,
    scaling: list[Scale],
    values: jax.Array,
) -> tuple[_Moving, list[jax.Array]]:
    """One step on a minibatch, rows f32[minibatch, numbers] of the table."""

    def objective(params: list[Params]) -> tuple[jax.Array, list[jax.Array]]:
        parts = _divergence(config, layout, params, scaling, values)
        each = [part.mean(axis=-1) for part in parts]
        return jnp.concatenate(each).sum(), each

    gradients, each = jax.grad(objective, has_aux=True)(moving.params)
    updates, memory = _optimizer(config).update(gradients, moving.optimizer, moving.params)
    params: Any = optax.apply_updates(moving.params, updates)
    return _Moving(params, memory), each


@partial(jax.jit, static_argnums=(0, 1))
def _check(
    config: TrainConfig,
    layout: Layout,
    params: list[Params],
    scaling: list[Scale],
    values: jax.Array,
    weights: jax.Array,
) -> list[jax.Array]:
    """Weighted sum of the divergences of some samples, per group f32[ramps]."""
    return [part @ weights for part in _divergence(config, layout, params, scaling, values)]


def _validate(
    config: TrainConfig,
    layout: Layout,
    params: list[Params],
    scaling: list[Scale],
    table: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> list[jax.Array]:
    """Mean divergence over the validation samples, per group f32[ramps]."""
    size = min(config.minibatch, len(rows))
    sums: list[jax.Array] | None = None
    for start in range(0, len(rows), size):
        positions = np.arange(start, start + size)
        weights = (positions < len(rows)).astype(np.float32) / len(rows)
        values = table[rows[np.minimum(positions, len(rows) - 1)]]
        part = _check(config, layout, params, scaling, values, weights)
        sums = part if sums is None else jax.tree.map(jnp.add, sums, part)
    assert sums is not None  # there is at least one validation sample
    return sums


@jax.jit
def _keep_best(
    best: _Best, params: list[Params], checked: list[jax.Array]
) -> tuple[_Best, jax.Array]:
    """Each ramp's best parameters and loss so far, and whether any ramp gained materially."""
    kept, lowest, gained = [], [], []
    for new, old, loss, least in zip(params, best.params, checked, best.loss, strict=True):
        better = loss < least
        kept.append(jax.tree.map(partial(_choose, better), new, old))
        lowest.append(jnp.where(better, loss, least))
        gained.append(jnp.any(loss < least - _MATERIAL_NATS))
    return _Best(kept, lowest), jnp.any(jnp.stack(gained))


def _choose(better: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Rows of ``new`` where it is better, f32[ramps, ...]."""
    return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
