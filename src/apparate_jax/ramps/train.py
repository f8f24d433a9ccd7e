"""Train all ramps together against the frozen model's own answers.

Targets are the original model's outputs on the first part of the data; labels are never needed. The
backbone is frozen and nothing exits during training, so ramps are independent of one another and
train together (Apparate, SOSP'24, section 3.1). A share of that part is held out: it ends training
early, fits a temperature per ramp (errors are compared with thresholds) and says how often each
ramp agrees with the original model. Standardisation and temperature are folded into kernel and
bias: serving does one dense layer.

Sharp edges: the agreement is a little optimistic, since the same samples ended training.
Neighbouring frames of a video are nearly equal: with ``split="random"`` there, agreement is
measured on what was learnt; use ``split="last"``.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model, Site
from apparate_jax.data.dataset import Dataset
from apparate_jax.errors import RampError
from apparate_jax.graph import Program
from apparate_jax.ramps.answer import answer_error
from apparate_jax.ramps.cache import Announce
from apparate_jax.ramps.calibrate import fit_temperatures
from apparate_jax.ramps.config import AUTO, TrainConfig
from apparate_jax.ramps.features import Features, Progress, collect_features
from apparate_jax.ramps.fit import Fitted, fit_heads
from apparate_jax.ramps.heads import HEAD_KINDS, Ramp, choose_kind

__all__ = [
    "TrainConfig",
    "TrainedRamps",
    "Validation",
    "fit_ramps",
    "head_kinds",
    "train_ramps",
    "training_features",
]


_compiled_error = jax.jit(answer_error)


@dataclass(frozen=True, slots=True)
class Validation:
    """What ramps say about the held-out samples: V samples, R ramps.

    Attributes:
        sites: Indices of the ramps' sites, R of them.
        rows: i64[V], which samples of the data.
        errors: f32[V, R].
        predictions: i32[V, R].
        labels: i32[V], the original model's answers.
    """

    sites: tuple[int, ...]
    rows: NDArray[np.int64]
    errors: NDArray[np.float32]
    predictions: NDArray[np.int32]
    labels: NDArray[np.int32]

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """bool[V, R]: whether the ramp's answer is the original's."""
        agrees: NDArray[np.bool_] = self.predictions == self.labels[:, None]
        return agrees


@dataclass(frozen=True, slots=True)
class TrainedRamps:
    """Ramps for every site that a head kind fits.

    Attributes:
        ramps: Ascending by site.
        validation: Errors and predictions on the held-out samples, columns as ``ramps``.
        losses: f32[epochs, 2, ramps], divergence from the original (nats) in training and
            validation.
        samples: How many samples ramps were trained on, without the held-out ones.
    """

    ramps: tuple[Ramp, ...]
    validation: Validation
    losses: NDArray[np.float32]
    samples: int


def train_ramps(
    program: Program,
    model: Model,
    data: Dataset,
    config: TrainConfig | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> TrainedRamps:
    """Train and calibrate a ramp for every site, on the model's own answers to unlabelled data.

    Args:
        program: The traced model.
        model: Its description: mask and pooling.
        data: Inputs; the first ``config.data_frac`` of its rows is used.
        config: Settings.
        progress: ``progress(done, total, what)``, for the pass of the model and for training.
        announce: Told one line, how large the cache of features is, before it is filled.

    Raises:
        RampError: Too few samples, answers of one class only, no site that a head kind fits, or
            more features than the memory or the disk that they may take.
        DataError: Data that does not fit the model.
        NumericsError: The model's logits or values are not finite; says for which rows.

    References:
        Apparate (SOSP'24), section 3.1.
    """
    config = config or TrainConfig()
    with training_features(program, model, data, config, progress, announce) as features:
        return fit_ramps(features, program.sites, config, progress)


def training_features(
    program: Program,
    model: Model,
    data: Dataset,
    config: TrainConfig,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> AbstractContextManager[Features]:
    """The first half of :func:`train_ramps`, for callers who want the model's memory back.

    Returns:
        A context manager: entering it runs the model, on which nothing in it depends after that.
        :func:`fit_ramps` does the rest.

    Raises:
        RampError: Too few samples, or no site that a head kind fits; the rest when entering.
    """
    kinds = head_kinds(program.sites, model, config.kind)
    count = round(len(data) * config.data_frac)
    if count < config.min_samples:
        raise RampError(
            f"{config.data_frac:.0%} of {len(data)} samples are {count}, expected at least "
            f"{config.min_samples} to train ramps on: give more data or a larger share of it "
            "(data_frac)"
        )
    return collect_features(
        program,
        model,
        data,
        kinds,
        samples=count,
        batch_size=config.batch_size,
        max_bytes=config.max_cache_bytes,
        cache_dir=config.cache_dir,
        progress=progress,
        announce=announce,
    )


def head_kinds(sites: Sequence[Site], model: Model, kind: str = AUTO) -> dict[int, str]:
    """The head kind of every site that gets a ramp, by site index.

    Args:
        sites: The program's sites.
        model: Its description: mask and pooling.
        kind: One kind wherever it fits, or ``"auto"``.

    Raises:
        RampError: If there is none.
    """
    found: dict[int, str] = {}
    for site in sites:
        name = choose_kind(site, model) if kind == AUTO else kind
        if name is not None and HEAD_KINDS[name].fits(site.shape):
            found[site.index] = name
    if not found:
        shapes = sorted({site.shape for site in sites})
        raise RampError(
            f"no head kind fits any of {len(sites)} sites (kind {kind!r}, shapes {shapes}): add "
            f"one to HEAD_KINDS, or use kind {AUTO!r}"
        )
    return found


def fit_ramps(
    features: Features,
    sites: Sequence[Site],
    config: TrainConfig,
    progress: Progress | None = None,
) -> TrainedRamps:
    """Train, calibrate and fold ramps on cached features.

    Args:
        features: Of all samples, held-out ones included.
        sites: The program's sites.
        config: Settings.
        progress: Called after each epoch.

    Raises:
        RampError: The original model gives one answer only.
    """
    answers = features.logits.argmax(axis=1).astype(np.int32)
    if (answers == answers[0]).all():
        raise RampError(
            f"the model gives class {answers[0]} for all {len(answers)} samples: ramps cannot "
            "learn from that, give data on which its answers differ"
        )
    train, valid = _split(len(answers), config)
    fitted = fit_heads(features, train, valid, config, progress)
    temperatures, validation = _calibrated(fitted, valid, answers[valid])
    params = fitted.folded(temperatures)
    agreement = validation.agrees.mean(axis=0)
    ramps = tuple(
        Ramp(
            site=site,
            name=sites[site].name,
            kind=features.kinds[r],
            params=params[r],
            agreement=float(agreement[r]),
            temperature=float(temperatures[r]),
            style=config.style,
        )
        for r, site in enumerate(features.sites)
    )
    return TrainedRamps(ramps, validation, fitted.losses, len(train))


def _calibrated(
    fitted: Fitted, rows: NDArray[np.int64], labels: NDArray[np.int32]
) -> tuple[jax.Array, Validation]:
    """Temperatures f32[ramps], and what the calibrated ramps say about the held-out samples.

    One ramp at a time: with many classes, the logits of all would outgrow the features.
    """
    temperatures, errors, predictions = [], [], []
    for ramp in range(len(fitted.features.sites)):
        logits = np.asarray(fitted.logits(ramp, rows))
        temperature = np.asarray(fit_temperatures(logits[None], labels))
        temperatures.append(temperature)
        errors.append(np.asarray(_compiled_error(logits / temperature)))
        predictions.append(logits.argmax(axis=-1).astype(np.int32))
    validation = Validation(
        sites=fitted.features.sites,
        rows=rows,
        errors=np.stack(errors, axis=1),
        predictions=np.stack(predictions, axis=1),
        labels=labels,
    )
    return jnp.asarray(np.concatenate(temperatures)), validation


def _split(count: int, config: TrainConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the training and of the held-out part, ascending."""
    held = min(max(1, round(count * config.validation_frac)), count - 1)
    if config.split == "last":
        return np.arange(count - held), np.arange(count - held, count)
    order = np.random.default_rng(config.seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])
