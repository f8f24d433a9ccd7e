"""Train the heads of all ramps at once on cached features.

A head is multinomial logistic regression on standardised features, towards the original model's
probabilities or its label. Ramps do not depend on one another (nothing exits in training), so those
of equal width are stacked into one batched problem, and groups of other widths share the compiled
step. AdamW acts element by element, so this equals training each ramp alone.

Every ramp keeps the parameters of its own best epoch on the validation samples; training ends when
none has improved for ``patience`` epochs. Kernels start at zero: the only randomness is the order
of the samples, which is seeded.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int
from numpy.typing import NDArray

from apparate_jax.ramps.calibrate import fold
from apparate_jax.ramps.config import TrainConfig
from apparate_jax.ramps.features import Progress

Params = dict[str, jax.Array]
"""``{"kernel": f32[ramps, width, classes], "bias": f32[ramps, classes]}`` of one group."""

# Steps of an epoch at least: few samples would otherwise be learnt too slowly for `patience`.
_LEAST_STEPS = 8

# An improvement below this does not keep training going.
_MATERIAL_NATS = 1e-4


class Group(NamedTuple):
    """Ramps of one width, their features standardised by the training samples.

    Attributes:
        members: Positions of the ramps in the caller's order.
        mean: f32[ramps, width] of the training samples.
        inverse_std: f32[ramps, width], 0 where a feature does not vary.
        train: f32[ramps, training samples, width].
        valid: f32[ramps, validation samples, width].
    """

    members: tuple[int, ...]
    mean: NDArray[np.float32]
    inverse_std: NDArray[np.float32]
    train: NDArray[np.float32]
    valid: NDArray[np.float32]


class Fitted(NamedTuple):
    """Trained heads, on standardised features.

    Attributes:
        groups: Each group with its trained parameters.
        valid_logits: f32[ramps, validation samples, classes], in the caller's order.
        losses: f32[epochs, 2, ramps], training and validation loss in nats.
    """

    groups: tuple[tuple[Group, Params], ...]
    valid_logits: jax.Array
    losses: NDArray[np.float32]

    def folded(self, temperatures: Float[Array, " ramps"]) -> list[Params]:
        """Kernel f32[width, classes] and bias f32[classes] of each ramp, for raw features."""
        found: dict[int, Params] = {}
        for group, params in self.groups:
            heat = temperatures[np.asarray(group.members)]
            mean, scale = jnp.asarray(group.mean), jnp.asarray(group.inverse_std)
            kernel, bias = fold(params["kernel"], params["bias"], mean, scale, heat)
            for position, k, b in zip(group.members, kernel, bias, strict=True):
                found[position] = {"kernel": k, "bias": b}
        return [found[position] for position in sorted(found)]


class _State(NamedTuple):
    params: list[Params]
    optimizer: Any
    best: list[Params]
    best_loss: list[jax.Array]


class _Report(NamedTuple):
    trained: list[jax.Array]
    checked: list[jax.Array]
    improved: jax.Array


def make_groups(
    pooled: Sequence[Float32[np.ndarray, "samples _"]],
    train_rows: Int[np.ndarray, " train"],
    valid_rows: Int[np.ndarray, " valid"],
) -> tuple[Group, ...]:
    """Stack features of equal width, standardised.

    Args:
        pooled: Per ramp, f32[samples, width].
        train_rows: Samples to train on.
        valid_rows: Samples to validate on.
    """
    by_width: dict[int, list[int]] = {}
    for position, table in enumerate(pooled):
        by_width.setdefault(table.shape[1], []).append(position)
    groups = []
    for members in by_width.values():
        train = np.stack([pooled[m][train_rows] for m in members])
        valid = np.stack([pooled[m][valid_rows] for m in members])
        mean = train.mean(axis=1, dtype=np.float64).astype(np.float32)
        std = train.std(axis=1, dtype=np.float64)
        # What varies by rounding only would be blown up to unit size, and dominate on other data.
        varies = std > 1e-6 * (np.abs(mean) + std.mean(axis=1, keepdims=True))
        scale = np.where(varies, 1.0 / np.where(varies, std, 1.0), 0.0).astype(np.float32)
        for table in (train, valid):
            table -= mean[:, None]
            table *= scale[:, None]
        groups.append(Group(tuple(members), mean, scale, train, valid))
    return tuple(groups)


def fit_heads(
    groups: Sequence[Group],
    train_targets: Float32[np.ndarray, "train classes"],
    valid_targets: Float32[np.ndarray, "valid classes"],
    config: TrainConfig,
    progress: Progress | None = None,
) -> Fitted:
    """Train the heads of all groups together.

    Args:
        groups: From :func:`make_groups`.
        train_targets: Class probabilities of the training samples.
        valid_targets: The same of the validation samples.
        config: Settings of the optimiser.
        progress: Called after each epoch.
    """
    samples = len(train_targets)
    # The data are arguments of the epoch: as constants they would be copied into the program.
    train = [jnp.asarray(g.train) for g in groups], jnp.asarray(train_targets)
    valid = [jnp.asarray(g.valid) for g in groups], jnp.asarray(valid_targets)
    state = _start(groups, train_targets.shape[1], _optimizer(config))
    rng = np.random.default_rng(config.seed)
    size = min(config.minibatch, max(1, samples // _LEAST_STEPS))
    order = np.argsort([m for g in groups for m in g.members])
    losses: list[NDArray[np.float32]] = []
    since = 0
    while len(losses) < config.max_epochs and since < config.patience:
        rows = rng.permutation(samples)[: samples // size * size].reshape(-1, size)
        state, report = _epoch(config, state, *train, *valid, jnp.asarray(rows))
        both = [np.concatenate([np.asarray(v) for v in side])[order] for side in report[:2]]
        losses.append(np.stack(both))
        since = 0 if bool(report.improved) else since + 1
        if progress is not None:
            ended = since >= config.patience
            done = config.max_epochs if ended else len(losses)
            progress(done, config.max_epochs, "training ramps")
    logits = jnp.concatenate(
        [_logits(params, group.valid) for params, group in zip(state.best, groups, strict=True)]
    )
    return Fitted(tuple(zip(groups, state.best, strict=True)), logits[order], np.stack(losses))


def _optimizer(config: TrainConfig) -> optax.GradientTransformation:
    def is_kernel(params: list[Params]) -> list[dict[str, bool]]:
        return [{"kernel": True, "bias": False} for _ in params]

    return optax.adamw(config.learning_rate, weight_decay=config.weight_decay, mask=is_kernel)


def _start(
    groups: Sequence[Group], classes: int, optimizer: optax.GradientTransformation
) -> _State:
    params = [
        {
            "kernel": jnp.zeros((*g.mean.shape, classes), jnp.float32),
            "bias": jnp.zeros((len(g.members), classes), jnp.float32),
        }
        for g in groups
    ]
    worst = [jnp.full(len(g.members), jnp.inf) for g in groups]
    return _State(params, optimizer.init(params), params, worst)


def _logits(params: Params, features: Any) -> jax.Array:
    return jnp.einsum("rnw,rwc->rnc", features, params["kernel"]) + params["bias"][:, None]


def _divergence(params: Params, features: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean Kullback-Leibler divergence of each ramp from the targets, in nats: f32[ramps]."""
    scores = jax.nn.log_softmax(_logits(params, features), axis=-1)
    entropy = jax.scipy.special.xlogy(targets, targets).sum(axis=-1)
    return (entropy - (targets * scores).sum(axis=-1)).mean(axis=-1)


@partial(jax.jit, static_argnums=0)
def _epoch(
    config: TrainConfig,
    state: _State,
    features: list[jax.Array],
    targets: jax.Array,
    valid: list[jax.Array],
    valid_targets: jax.Array,
    order: jax.Array,
) -> tuple[_State, _Report]:
    """One pass over the training samples, in steps of the rows i[steps, minibatch] of ``order``."""
    optimizer = _optimizer(config)

    def objective(params: list[Params], rows: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        each = [
            _divergence(p, x[:, rows], targets[rows]) for p, x in zip(params, features, strict=True)
        ]
        return jnp.concatenate(each).sum(), each

    def step(carry: Any, rows: jax.Array) -> tuple[Any, list[jax.Array]]:
        params, memory = carry
        gradients, each = jax.grad(objective, has_aux=True)(params, rows)
        updates, memory = optimizer.update(gradients, memory, params)
        return (optax.apply_updates(params, updates), memory), each

    (params, memory), steps = jax.lax.scan(step, (state.params, state.optimizer), order)
    checked = [_divergence(p, x, valid_targets) for p, x in zip(params, valid, strict=True)]
    best, lowest, improved = _keep_best(state, params, checked)
    report = _Report([loss.mean(axis=0) for loss in steps], checked, improved)
    return _State(params, memory, best, lowest), report


def _keep_best(
    state: _State, params: list[Params], checked: list[jax.Array]
) -> tuple[list[Params], list[jax.Array], jax.Array]:
    """Each ramp's best parameters and loss so far, and whether any ramp gained materially."""
    best, lowest, gained = [], [], []
    for new, old, loss, least in zip(params, state.best, checked, state.best_loss, strict=True):
        better = loss < least
        best.append(
            {
                "kernel": jnp.where(better[:, None, None], new["kernel"], old["kernel"]),
                "bias": jnp.where(better[:, None], new["bias"], old["bias"]),
            }
        )
        lowest.append(jnp.where(better, loss, least))
        gained.append(jnp.any(loss < least - _MATERIAL_NATS))
    return best, lowest, jnp.any(jnp.stack(gained))
