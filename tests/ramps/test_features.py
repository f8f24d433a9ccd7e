import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.core import InputSpec, Model
from apparate_jax.errors import DataError, NumericsError, RampError
from apparate_jax.graph import trace
from apparate_jax.ramps.features import collect_features
from apparate_jax.ramps.heads import pool
from tests.ramps.tiny import sentences, tiny_encoder

LIMITS = {"batch_size": 4, "max_bytes": 2**20}
KINDS = {0: "masked_mean", 2: "first_token", 3: "identity"}


@pytest.mark.parametrize("count", [3, 8, 11])
def test_features_are_the_pooled_values_of_every_sample(count):
    tiny = tiny_encoder()
    inputs = sentences(count)
    features = collect_features(tiny.program, tiny.model, inputs, KINDS, **LIMITS)
    values, logits = jax.jit(tiny.program.rebatch(count).taps(list(KINDS)))(*inputs)
    assert features.sites == (0, 2, 3) and features.kinds == tuple(KINDS.values())
    np.testing.assert_allclose(features.logits, logits, rtol=1e-4, atol=1e-5)
    for kind, value, table in zip(features.kinds, values, features.pooled, strict=True):
        expected = pool(kind, value, jnp.asarray(inputs[1]))
        np.testing.assert_allclose(table, expected, rtol=1e-4, atol=1e-5)


def test_progress_ends_at_the_number_of_samples():
    seen = []
    tiny = tiny_encoder()
    collect_features(
        tiny.program,
        tiny.model,
        sentences(10),
        KINDS,
        **LIMITS,
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_rows_that_are_not_finite_are_named():
    params = {"a": np.ones((4, 8), np.float32), "b": np.ones((8, 2), np.float32)}

    def fn(params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"]

    model = Model("m", fn, params, (InputSpec("x", (4,), "float32"),))
    program = trace(fn, params, np.ones((2, 4), np.float32))
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    x[[3, 7], 1] = np.nan
    with pytest.raises(NumericsError, match=r"logits are not finite for 2 of 9.*rows \[3, 7\]"):
        collect_features(program, model, [x], {0: "identity"}, **LIMITS)


def test_a_value_that_overflows_is_named_by_its_site():
    params = [np.full(shape, 3e38, np.float32) for shape in ((4, 8), (8, 8), (8, 2))]

    def fn(params, x):
        x = jnp.maximum(x @ params[0], 0.0)
        return jnp.tanh(jnp.tanh(x @ params[1]) @ params[2])

    x = np.ones((3, 4), np.float32)
    model = Model("m", fn, params, (InputSpec("x", (4,), "float32"),))
    program = trace(fn, params, x)
    assert np.isfinite(jax.jit(fn)(params, x)).all()
    with pytest.raises(NumericsError, match=r"values at .* not finite for 3 of 3"):
        collect_features(program, model, [x], {0: "identity"}, **LIMITS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, mask: (ids,), "1 arrays for a model of 2 inputs"),
        (
            lambda ids, mask: (ids[:, :5], mask),
            r"input 0 is int32\[6, 5\], .* int32\[samples, 12\]",
        ),
        (lambda ids, mask: (ids, mask.astype(np.float32)), "input 1 is float32"),
        (lambda ids, mask: (ids, mask[:2]), r"\[6, 2\] samples"),
        (lambda ids, mask: (ids[:0], mask[:0]), "not 0"),
    ],
)
def test_data_that_does_not_fit_the_model(change, message):
    tiny = tiny_encoder()
    with pytest.raises(DataError, match=message):
        collect_features(tiny.program, tiny.model, change(*sentences(6)), KINDS, **LIMITS)


def test_memory_is_checked_before_the_model_runs():
    tiny = tiny_encoder()
    with pytest.raises(RampError, match="max_cache_bytes"):
        collect_features(
            tiny.program, tiny.model, sentences(40), KINDS, batch_size=4, max_bytes=1000
        )
