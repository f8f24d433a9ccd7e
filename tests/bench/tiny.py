"""A model whose answer says which row it was, its ramps, and results made by hand."""

import jax.numpy as jnp
import numpy as np

from apparate_jax.bench.comparison import Answers, Comparison, Decisions, Round
from apparate_jax.bench.recording import Part, Recording
from apparate_jax.checkpoint import Checkpoint
from apparate_jax.control import ControlConfig
from apparate_jax.core import ExitPlan, InputSpec, Profile, ShapeProfile
from apparate_jax.data import ArrayDataset
from apparate_jax.graph import trace
from apparate_jax.models import from_function
from apparate_jax.ramps.heads import Ramp
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve.engine import EngineConfig
from apparate_jax.serve.service import ServiceConfig

CLASSES = 16
WRONG = 3
"""The first ramp takes this class for another."""


def model():
    """Two layers that keep the largest entry of ``x`` where it is; logits are the second."""

    def fn(params, x):
        x = jnp.tanh(x @ params[0])
        x = jnp.tanh(x @ params[1])
        return x @ params[2]

    params = [scale * np.eye(CLASSES, dtype=np.float32) for scale in (1.0, 1.5, 9.0)]
    inputs = [InputSpec("x", (CLASSES,), "float32", 0.0, 1.0)]
    return from_function(fn, params, inputs=inputs, name="rows")


def data(rows=CLASSES + 5, **named):
    """Row ``i`` is of class ``i % CLASSES``."""
    x = np.eye(CLASSES, dtype=np.float32)[np.arange(rows) % CLASSES]
    return ArrayDataset("rows.npz", (named.get("x", x),))


def checkpoint():
    """The second ramp is always right; the first one is wrong for one class of sixteen."""
    made = model()
    sites = trace(made.apply, made.params, *made.example_inputs(2)).sites
    first = 12.0 * np.eye(CLASSES, dtype=np.float32)
    first[WRONG] = np.roll(first[WRONG], 1)
    kernels = first, 12.0 * np.eye(CLASSES, dtype=np.float32)
    ramps = tuple(
        Ramp(
            site=site.index,
            name=site.name,
            kind="identity",
            params={"kernel": jnp.asarray(kernel), "bias": jnp.zeros(CLASSES)},
            agreement=1.0,
            temperature=1.0,
        )
        for site, kernel in zip(sites, kernels, strict=True)
    )
    return Checkpoint(made, sites, ramps, active=(0, 1))


def config(batch_sizes=(1, 2, 4), queue_size=1024, accuracy=0.7):
    return ServiceConfig(
        batch_sizes=batch_sizes,
        engine=EngineConfig(queue_size=queue_size),
        control=ControlConfig(accuracy=accuracy, window=256, tune_every=32),
        placement=PlacementConfig(ramp_budget=100.0),
    )


PROFILE = Profile(
    device="paper",
    jax_version="0",
    sites=(0, 1),
    shapes=(
        ShapeProfile(1, 10.0, 11.0, (3.0, 8.0), (4.0, 10.0), (0.1, 0.1)),
        ShapeProfile(4, 20.0, 21.0, (6.0, 16.0), (8.0, 20.0), (0.1, 0.1)),
    ),
)


def answers(latency_ms, exits=None, right=None, shape=1):
    count = len(latency_ms)
    return Answers(
        latency_ms=np.asarray(latency_ms, np.float64),
        exits=np.full(count, 2, np.int32) if exits is None else np.asarray(exits, np.int32),
        right=np.ones(count, np.bool_) if right is None else np.asarray(right, np.bool_),
        shape=np.full(count, shape, np.int32),
        arrived_s=np.arange(count) / 10,
    )


def result():
    """Two rounds by hand: early answers take half of the time, one of eight is wrong."""
    early = [
        answers([5, 6, 7, 8], [0, 0, 1, 2], [True, True, True, True]),
        answers([5, 6, 7, 8], [0, 1, 1, 2], [True, False, True, True]),
    ]
    rounds = tuple(
        Round(
            throughput_rps={"vanilla": 100.0 + 10 * i, "apparate": 99.0 + 11 * i},
            answers={"vanilla": answers([10, 12, 14, 16]), "apparate": early[i]},
            first_input=4 * i,
            order=("vanilla", "apparate")[:: 1 - 2 * i],
        )
        for i in range(2)
    )
    outside = answers([50] * 8, [2] * 8)
    plan = ExitPlan((0, 1), (0.25, 0.0))
    return Comparison(rounds, 40.0, plan, Decisions(tunings=3, stops=1), outside)


SITES = ("near", "middle", "far")
STREAM = Profile(
    device="paper",
    jax_version="0",
    sites=(0, 2),
    shapes=(
        ShapeProfile(1, 10.0, 11.0, (3.0, 8.0), (2.0, 5.0, 7.0), (0.2, 0.2, 0.2), 3.0),
        ShapeProfile(2, 16.0, 18.0, (5.0, 13.0), (3.0, 8.0, 11.0), (0.3, 0.3, 0.3), 5.0),
        ShapeProfile(4, 20.0, 24.0, (6.0, 18.0), (4.0, 10.0, 14.0), (0.4, 0.4, 0.4), 6.0),
    ),
)


def recording(rows=40, seed=0, **changed):
    """A stream of three sites with a ramp each, the first and last of them profiled.

    Ramps are the surer, and the more often right, the deeper they lie.
    """
    rng = np.random.default_rng(seed)
    final = rng.integers(0, 3, rows).astype(np.int32)
    errors = (rng.uniform(0, 0.9, (rows, 3)) / (1, 2, 4)).astype(np.float32)
    wrong = rng.uniform(size=(rows, 3)) < errors / 2
    made = {
        "model": "paper",
        "workload": "stream.csv",
        "site_names": SITES,
        "depths": (0.2, 0.5, 0.7),
        "ramps": (0, 1, 2),
        "errors": errors,
        "predictions": np.where(wrong, (final[:, None] + 1) % 3, final[:, None]).astype(np.int32),
        "final_predictions": final,
        "profile": STREAM,
        "device": "paper",
        "jax_version": "0",
        "parts": (Part("stream.csv", 0),),
        "labels": final,
    }
    return Recording(**{**made, **changed})
