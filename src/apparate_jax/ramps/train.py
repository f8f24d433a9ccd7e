"""Train all ramps together against the frozen model's own answers.

Targets are the original model's outputs, the backbone is frozen and nothing exits during training,
so ramps are independent of one another and train together (Apparate, SOSP'24, section 3.1). Ramps
whose features have the same width are one vmapped problem. Training stops when the loss on the
validation part no longer falls; each ramp keeps its best parameters. Then a temperature per ramp
is fitted there, since errors are compared with thresholds; it and the standardisation of features
are folded into kernel and bias, so that serving does nothing more than one dense layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32
from numpy.typing import NDArray

from apparate_jax.core import Model, Site
from apparate_jax.errors import ConfigError, RampError
from apparate_jax.graph import Program
from apparate_jax.ramps.features import Features, Progress, collect
from apparate_jax.ramps.heads import Ramp, choose_kind

MIN_SAMPLES = 50


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of ramp training.

    Attributes:
        data_frac: Share of the data, from its start, that ramps are trained and validated on.
        validation_frac: Share of that part that is kept for validation.
        max_epochs: Passes over the training part at most.
        patience: Epochs without a better validation loss before a ramp's training stops.
        batch: Examples per step.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        seed: Of the split and the order.
    """

    data_frac: float = 0.1
    validation_frac: float = 0.25
    max_epochs: int = 60
    patience: int = 8
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.data_frac <= 1.0 or not 0.0 < self.validation_frac < 1.0:
            raise ConfigError(
                f"data_frac is {self.data_frac} and validation_frac {self.validation_frac}, "
                "expected 0..1"
            )
        if min(self.max_epochs, self.patience, self.batch) < 1 or self.learning_rate <= 0:
            raise ConfigError(
                f"max_epochs {self.max_epochs}, patience {self.patience}, batch {self.batch} and "
                f"learning_rate {self.learning_rate} must be above 0"
            )


class Validation(NamedTuple):
    """What the trained ramps do on the validation part, for placement and planning.

    Attributes:
        errors: f32[count, ramps].
        agrees: bool[count, ramps].
    """

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]


class TrainedRamps(NamedTuple):
    """Ramps for every site that a head kind fits.

    Attributes:
        ramps: Ascending by site.
        validation: Their errors and agreement on the validation part, columns as ``ramps``.
        samples: How many examples ramps were trained on, validation excluded.
        epochs: Passes that were made.
    """

    ramps: tuple[Ramp, ...]
    validation: Validation
    samples: int
    epochs: int


def train_ramps(
    program: Program,
    model: Model,
    inputs: Sequence[NDArray[Any]],
    config: TrainConfig | None = None,
    *,
    progress: Progress | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> TrainedRamps:
    """Train a ramp at every site, on the model's own answers to unlabelled data.

    Args:
        program: The traced model.
        model: Its description.
        inputs: Arrays ``[count, ...]`` in the model's order; the first ``data_frac`` is used.
        config: Settings.
        progress: Called with examples done and in total, during the pass of the frozen model.
        on_epoch: Called with the epoch and the mean validation loss.

    Raises:
        RampError: Too few samples, an original model that gives one answer only, or no site that a
            head kind fits.
        NumericsError: The model's logits are not finite.
    """
    config = config or TrainConfig()
    kinds = {s.index: kind for s in program.sites if (kind := choose_kind(s, model)) is not None}
    if not kinds:
        shapes = [list(s.shape) for s in program.sites]
        raise RampError(f"no head kind fits any site (shapes {shapes}): add one to HEAD_KINDS")
    count = round(len(inputs[0]) * config.data_frac) if inputs else 0
    if count < MIN_SAMPLES:
        raise RampError(
            f"{config.data_frac:.0%} of {len(inputs[0]) if inputs else 0} examples are {count}, "
            f"expected at least {MIN_SAMPLES}: give more data or a larger share of it"
        )
    features = collect(program, model, kinds, [x[:count] for x in inputs], progress=progress)
    return fit_ramps(features, program.sites, config, on_epoch)


def fit_ramps(
    features: Features,
    sites: Sequence[Site],
    config: TrainConfig,
    on_epoch: Callable[[int, float], None] | None = None,
) -> TrainedRamps:
    """Train, calibrate and fold ramps on cached features."""
    answers = features.logits.argmax(axis=1)
    if len(np.unique(answers)) < 2:
        raise RampError(
            f"the model gives class {answers[0]} for all {len(answers)} examples: ramps cannot "
            "learn from that, give data on which its answers differ"
        )
    order = np.random.default_rng(config.seed).permutation(len(answers))
    held = max(1, round(len(order) * config.validation_frac))
    valid, train = order[:held], order[held:]
    by_width: dict[int, list[int]] = {}
    for i, values in enumerate(features.pooled):
        by_width.setdefault(values.shape[1], []).append(i)
    trained: dict[int, Ramp] = {}
    columns: dict[int, tuple[Any, Any]] = {}
    epochs = 0
    for members in by_width.values():
        stacked = np.stack([features.pooled[i] for i in members])
        fitted = _fit_group(stacked, features.logits, train, valid, config, on_epoch)
        epochs = max(epochs, fitted.epochs)
        logits = fitted.apply(stacked[:, valid])
        for row, i in enumerate(members):
            error = 1.0 - np.asarray(jax.nn.softmax(logits[row], axis=-1)).max(axis=-1)
            agree = np.asarray(logits[row]).argmax(axis=-1) == answers[valid]
            columns[i] = error.astype(np.float32), agree
            trained[i] = Ramp(
                site=features.sites[i],
                name=sites[features.sites[i]].name,
                kind=features.kinds[i],
                params={"kernel": fitted.kernel[row], "bias": fitted.bias[row]},
                agreement=float(agree.mean()),
                temperature=float(fitted.temperature[row]),
            )
    everyone = range(len(features.pooled))
    validation = Validation(
        np.stack([columns[i][0] for i in everyone], axis=1),
        np.stack([columns[i][1] for i in everyone], axis=1),
    )
    return TrainedRamps(tuple(trained[i] for i in everyone), validation, len(train), epochs)


class _Fitted(NamedTuple):
    kernel: Float32[Array, "ramps width classes"]
    bias: Float32[Array, "ramps classes"]
    temperature: Float32[Array, " ramps"]
    epochs: int

    def apply(self, pooled: NDArray[np.float32]) -> jax.Array:
        """Calibrated logits f32[ramps, count, classes] of raw features."""
        return jnp.einsum("rnw,rwc->rnc", pooled, self.kernel) + self.bias[:, None]


def soft_loss(
    logits: Float[Array, "*n classes"], targets: Float[Array, "*n classes"]
) -> Float[Array, "*n"]:
    """Cross entropy against the original model's probabilities (distillation)."""
    return -(targets * jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1)


def _fit_group(
    pooled: NDArray[np.float32],
    logits: NDArray[np.float32],
    train: NDArray[np.int64],
    valid: NDArray[np.int64],
    config: TrainConfig,
    on_epoch: Callable[[int, float], None] | None,
) -> _Fitted:
    """Ramps of one width: standardise, train with early stop, calibrate, fold."""
    mean = pooled[:, train].mean(axis=1, keepdims=True)
    scale = pooled[:, train].std(axis=1, keepdims=True) + 1e-6
    x = jnp.asarray((pooled - mean) / scale)
    targets = jax.nn.softmax(jnp.asarray(logits), axis=-1)
    best, epochs = _descend(
        x[:, train], targets[train], x[:, valid], targets[valid], config, on_epoch
    )
    raw = jnp.einsum("rnw,rwc->rnc", x[:, valid], best["kernel"]) + best["bias"][:, None]
    temperature = fit_temperature(raw, jnp.argmax(targets[valid], axis=-1))
    kernel = best["kernel"] / scale[:, 0, :, None] / temperature[:, None, None]
    shift = jnp.einsum("rw,rwc->rc", mean[:, 0], kernel)
    bias = best["bias"] / temperature[:, None] - shift
    return _Fitted(kernel, bias, temperature, epochs)


def _descend(
    x: jax.Array,
    targets: jax.Array,
    x_valid: jax.Array,
    targets_valid: jax.Array,
    config: TrainConfig,
    on_epoch: Callable[[int, float], None] | None,
) -> tuple[dict[str, jax.Array], int]:
    """AdamW on all ramps at once; the best parameters of each, by validation loss."""
    ramps, count, width = x.shape
    params = {
        "kernel": jnp.zeros((ramps, width, targets.shape[1])),
        "bias": jnp.zeros((ramps, targets.shape[1])),
    }
    optimiser = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)

    def losses(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        scores = jnp.einsum("rnw,rwc->rnc", x, params["kernel"]) + params["bias"][:, None]
        return soft_loss(scores, y[None]).mean(axis=1)

    @jax.jit
    def epoch(params: Any, state: Any, order: jax.Array) -> Any:
        def step(carry: Any, rows: jax.Array) -> Any:
            params, state = carry
            grads = jax.grad(lambda p: losses(p, x[:, rows], targets[rows]).sum())(params)
            updates, state = optimiser.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, state), _ = jax.lax.scan(step, (params, state), order)
        return params, state, losses(params, x_valid, targets_valid)

    rng = np.random.default_rng(config.seed)
    size = min(config.batch, count)
    state = optimiser.init(params)
    best, lowest = params, np.full(ramps, np.inf)
    waited, done = np.zeros(ramps, int), 0
    while done < config.max_epochs and (waited < config.patience).any():
        order = rng.permutation(count)[: count // size * size].reshape(-1, size)
        params, state, loss = epoch(params, state, jnp.asarray(order))
        done += 1
        better = np.asarray(loss) < lowest
        lowest = np.where(better, loss, lowest)
        waited = np.where(better, 0, waited + 1)
        best = jax.tree.map(
            lambda new, old: jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old),  # noqa: B023
            params,
            best,
        )
        if on_epoch is not None:
            on_epoch(done, float(lowest.mean()))
    return best, done


def fit_temperature(
    logits: Float[Array, "ramps n classes"], labels: Array, steps: int = 40
) -> Float32[Array, " ramps"]:
    """The temperature per ramp that makes its probabilities honest on the given labels.

    Minimises the negative log-likelihood over temperatures from 1/8 to 8 by golden-section search
    on their logarithm (Guo et al., 2017, arXiv 1706.04599).
    """
    ratio = (5**0.5 - 1) / 2

    def loss(log_t: jax.Array) -> jax.Array:
        scaled = jax.nn.log_softmax(logits / jnp.exp(log_t)[:, None, None], axis=-1)
        picked = jnp.take_along_axis(scaled, labels[None, :, None], axis=-1)
        return -picked.mean(axis=(1, 2))

    def narrow(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        lower = loss(left) < loss(right)
        return jnp.where(lower, low, left), jnp.where(lower, right, high)

    edge = jnp.full(logits.shape[0], jnp.log(8.0))
    low, high = jax.lax.fori_loop(0, steps, narrow, (-edge, edge))
    return jnp.exp((low + high) / 2)
