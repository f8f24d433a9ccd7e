"""A small encoder, its sites and random sentences: what ramps are trained on in these tests."""

from functools import cache
from typing import NamedTuple

import numpy as np

from apparate_jax.core import InputSpec, Model
from apparate_jax.graph import Program, trace
from tests.zoo import encoder

INPUTS = (InputSpec("ids", (12,), "int32", 0, 50), InputSpec("mask", (12,), "int32", 1, 2))


class Tiny(NamedTuple):
    model: Model
    program: Program


@cache
def tiny_encoder() -> Tiny:
    case = encoder()
    model = Model("tiny", case.fn, case.params, INPUTS, mask="mask")
    return Tiny(model, trace(case.fn, case.params, *case.inputs))


def sentences(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (np.arange(12) < rng.integers(3, 13, (count, 1))).astype(np.int32)
    return rng.integers(0, 50, (count, 12)).astype(np.int32) * mask, mask
