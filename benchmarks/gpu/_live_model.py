"""A GPT-2 that is trained in seconds on made texts, with ramps: nothing has to be downloaded.

A text has a class; each token is of that class's part of the vocabulary with a probability that
differs from text to text, and any token else. So some texts are easy and some are not.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _sizes import Live

from apparate_jax.checkpoint import Checkpoint
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.initial import initial_sites
from apparate_jax.core import Model
from apparate_jax.data.dataset import ArrayDataset
from apparate_jax.graph import trace
from apparate_jax.models.zoo import from_zoo
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.ramps.train import TrainConfig, train_ramps

CLASSES = 8
MINIBATCH = 64
RATE = 1e-3
EASE = (0.1, 0.7)
"""Least and largest share of tokens that are of their text's class."""


def texts(model: Model, count: int, seed: int) -> ArrayDataset:
    """Made texts with their classes."""
    rng = np.random.default_rng(seed)
    ids = model.inputs[0]
    labels = rng.integers(0, CLASSES, count)
    tokens = rng.integers(0, int(ids.high) // CLASSES, (count, *ids.shape)) * CLASSES
    own = rng.random(tokens.shape) < rng.uniform(*EASE, (count, 1))
    tokens += np.where(own, labels[:, None], rng.integers(0, CLASSES, tokens.shape))
    masks = np.ones(tokens.shape, model.inputs[1].dtype)
    return ArrayDataset("made texts", (tokens.astype(ids.dtype), masks), labels)


def train(model: Model, steps: int) -> tuple[Model, float]:
    """Train all weights; returns the share of fresh texts that is classified right, too."""
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 10, steps))

    def loss(params: Any, inputs: Any, labels: Any) -> jax.Array:
        logits = model.apply(params, *inputs).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params: Any, state: Any, inputs: Any, labels: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params, inputs, labels), state, params)
        return optax.apply_updates(params, updates), state

    params, state = model.params, optimizer.init(model.params)
    for number in range(steps):
        batch = texts(model, MINIBATCH, 1000 + number)
        params, state = step(params, state, batch.inputs, batch.labels)
    trained, fresh = replace(model, params=params), texts(model, 256, 1)
    found = np.argmax(jax.jit(model.apply)(params, *fresh.inputs), axis=-1)
    return trained, float((found == fresh.labels).mean())


def checkpoint(live: Live, control: ControlConfig) -> tuple[Checkpoint, float]:
    """The trained model with trained ramps, and how often the model itself is right."""
    model, right = train(from_zoo("gpt2", classes=CLASSES, **live.model), live.steps)
    program = trace(model.apply, model.params, *model.example_inputs(1))
    config = TrainConfig(data_frac=1.0, batch_size=32)
    found = train_ramps(program, model, texts(model, live.texts, 2), config)
    active = initial_sites(program.sites, found.ramps, found.validation, PlacementConfig(), control)
    made = Checkpoint(model, program.sites, found.ramps, active, validation=found.validation)
    return made, right
