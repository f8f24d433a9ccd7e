"""The soak's model: an answer's label is the row that was sent, so that a mixed answer shows."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.checkpoint import Checkpoint, save_checkpoint
from apparate_jax.core import InputSpec, Model
from apparate_jax.graph import trace
from apparate_jax.models import from_function, load_model
from apparate_jax.ramps.heads import Ramp

ROWS, DEPTH = 256, 80
REFERENCE = "_soak_model:rows"


def rows() -> Model:
    """Layers that keep the largest entry of ``x`` where it is."""

    def fn(params: list[jax.Array], x: jax.Array) -> jax.Array:
        x = jnp.tanh(x @ params[0])
        x = jax.lax.fori_loop(0, DEPTH, lambda _, x: jnp.tanh(x @ params[1]), x)
        return x @ params[2]

    params = [scale * np.eye(ROWS, dtype=np.float32) for scale in (1.0, 1.5, 12.0)]
    return from_function(fn, params, inputs=[InputSpec("x", (ROWS,), "float32")], name="rows")


def save(path: Path, sharpness: float) -> None:
    """Write a checkpoint; another sharpness is another checkpoint that answers the same labels."""
    model = load_model(REFERENCE)
    first, second, head = model.params
    model = replace(model, params=[first, second, np.float32(sharpness) * np.asarray(head)])
    sites = trace(model.apply, model.params, *model.example_inputs(2)).sites
    active = sites[: DEPTH // 2 : DEPTH // 4]
    kernel = jnp.asarray(16.0 * np.eye(ROWS, dtype=np.float32))
    ramps = tuple(
        Ramp(
            site=site.index,
            name=site.name,
            kind="identity",
            params={"kernel": kernel, "bias": jnp.zeros(ROWS)},
            agreement=1.0,
            temperature=1.0,
        )
        for site in active
    )
    save_checkpoint(path, Checkpoint(model, sites, ramps, tuple(site.index for site in active)))
