import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.ramps.calibrate import (
    HIGHEST,
    LOWEST,
    fit_temperatures,
    fold,
    negative_log_likelihood,
)


def sampled_labels(logits, seed):
    """Labels drawn from the softmax of the logits: those logits are calibrated."""
    noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    return (logits + noise).argmax(-1)


def test_a_known_temperature_is_found_for_each_ramp():
    honest = np.random.default_rng(0).normal(0, 2, (4000, 5))
    labels = jnp.asarray(sampled_labels(honest, 1))
    scales = np.asarray([0.5, 1.0, 4.0])
    logits = jnp.asarray(scales[:, None, None] * honest, jnp.float32)
    np.testing.assert_allclose(fit_temperatures(logits, labels), scales, rtol=0.06)


def test_no_temperature_on_a_grid_is_better():
    rng = np.random.default_rng(3)
    logits = jnp.asarray(rng.normal(0, 3, (4, 200, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, 200))
    best = negative_log_likelihood(logits, labels, fit_temperatures(logits, labels))
    for temperature in np.geomspace(LOWEST, HIGHEST, 200):
        tried = negative_log_likelihood(logits, labels, jnp.full(4, temperature))
        assert (np.asarray(best) <= np.asarray(tried) + 1e-5).all()


def test_a_ramp_that_is_always_right_stays_within_bounds():
    labels = np.arange(30) % 3
    logits = jnp.asarray(np.eye(3, dtype=np.float32)[labels])
    temperature = fit_temperatures(jnp.stack([logits, -logits]), jnp.asarray(labels))
    np.testing.assert_allclose(temperature, [LOWEST, HIGHEST], rtol=1e-3)


def test_folding_gives_the_same_logits_on_raw_features():
    rng = np.random.default_rng(5)
    x = rng.normal(3, 2, (2, 9, 4)).astype(np.float32)
    kernel, bias = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 4, 3), (2, 3)))
    mean, scale = (jnp.asarray(rng.uniform(1, 4, (2, 4)), jnp.float32) for _ in range(2))
    heat = jnp.asarray([0.5, 3.0])
    standard = (x - mean[:, None]) * scale[:, None]
    expected = (jnp.einsum("rnw,rwc->rnc", standard, kernel) + bias[:, None]) / heat[:, None, None]
    folded = fold({"kernel": kernel, "bias": bias}, mean, scale, heat)
    found = jnp.einsum("rnw,rwc->rnc", x, folded["kernel"]) + folded["bias"][:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_likelihood_is_that_of_the_label(temperature):
    logits = jnp.asarray([[[1.0, 2.0, 0.5]]])
    expected = -jax.nn.log_softmax(logits[0, 0] / temperature)[2]
    found = negative_log_likelihood(logits, jnp.asarray([2]), jnp.asarray([temperature]))
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
