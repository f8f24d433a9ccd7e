import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.ramps.config import TrainConfig
from apparate_jax.ramps.fit import fit_heads, make_groups

ROWS = np.arange(160), np.arange(160, 200)
STEADY = TrainConfig(max_epochs=6, patience=6, minibatch=32)


def problem(seed=0, widths=(6, 4, 6), offset=3.0):
    """Features that tell a bit more about the class the later the ramp."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 200)
    tables = []
    for depth, width in enumerate(widths, 1):
        table = rng.normal(offset, 2.0, (200, width))
        table[:, :3] += depth * np.eye(3)[labels]
        tables.append(table.astype(np.float32))
    targets = np.asarray(jax.nn.softmax(3.0 * np.eye(3)[labels]), np.float32)
    return tables, targets, labels


def fit(tables, targets, config=STEADY, progress=None):
    groups = make_groups(tables, *ROWS)
    return fit_heads(groups, targets[ROWS[0]], targets[ROWS[1]], config, progress)


def test_ramps_of_equal_width_are_one_group():
    tables, _, _ = problem()
    first, second = make_groups(tables, *ROWS)
    assert (first.members, second.members) == ((0, 2), (1,))
    assert first.train.shape == (2, 160, 6) and second.valid.shape == (1, 40, 4)
    np.testing.assert_allclose(first.train.mean(1), 0.0, atol=1e-5)
    np.testing.assert_allclose(first.train.std(1), 1.0, rtol=1e-4)


def test_training_together_equals_training_each_alone():
    tables, targets, _ = problem()
    together = fit(tables, targets)
    for ramp, table in enumerate(tables):
        alone = fit([table], targets)
        np.testing.assert_allclose(
            together.valid_logits[ramp], alone.valid_logits[0], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            together.losses[..., ramp], alone.losses[..., 0], rtol=1e-4, atol=1e-6
        )


def test_training_is_deterministic_and_the_seed_matters():
    tables, targets, _ = problem()
    first, again = fit(tables, targets), fit(tables, targets)
    np.testing.assert_array_equal(first.losses, again.losses)
    np.testing.assert_array_equal(first.valid_logits, again.valid_logits)
    other = fit(tables, targets, TrainConfig(max_epochs=6, patience=6, minibatch=32, seed=1))
    assert (np.asarray(other.valid_logits) != np.asarray(first.valid_logits)).any()


def test_learning_approaches_the_best_linear_answer():
    tables, targets, _ = problem(widths=(6,))
    config = TrainConfig(max_epochs=300, patience=300, learning_rate=0.01, weight_decay=0.0)
    fitted = fit(tables, targets, config)
    standard = make_groups(tables, *ROWS)[0].train[0]
    design = np.concatenate([standard, np.ones((160, 1))], axis=1)

    def loss(weights):
        return -(targets[:160] * jax.nn.log_softmax(design @ weights)).sum(1).mean()

    descend = jax.jit(lambda weights: weights - 0.5 * jax.grad(loss)(weights))
    weights = jnp.zeros((7, 3))
    for _ in range(600):
        weights = descend(weights)
    best = loss(weights)
    entropy = -(targets[:160] * np.log(targets[:160])).sum(1).mean()
    np.testing.assert_allclose(fitted.losses[-1, 0, 0], best - entropy, atol=5e-3)


def test_each_ramp_keeps_its_best_epoch():
    rng = np.random.default_rng(7)
    tables = [rng.normal(size=(200, 80)).astype(np.float32)]
    targets = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 200)]
    config = TrainConfig(max_epochs=60, patience=5, minibatch=32, learning_rate=0.03)
    fitted = fit(tables, targets, config)
    valid = fitted.losses[:, 1, 0]
    scores = jax.nn.log_softmax(fitted.valid_logits[0])
    kept = -(targets[160:] * scores).sum(1).mean()
    np.testing.assert_allclose(kept, valid.min(), rtol=1e-5)
    assert valid.argmin() < len(valid) - 1, "noise is overfitted, so the last epoch is not the best"
    assert len(valid) <= valid.argmin() + 1 + config.patience < config.max_epochs


def test_folded_heads_give_the_same_logits_on_raw_features():
    tables, targets, _ = problem(offset=50.0)
    fitted = fit(tables, targets)
    temperatures = jnp.asarray([0.5, 1.0, 2.0])
    for ramp, params in enumerate(fitted.folded(temperatures)):
        raw = tables[ramp][ROWS[1]] @ params["kernel"] + params["bias"]
        expected = fitted.valid_logits[ramp] / temperatures[ramp]
        np.testing.assert_allclose(raw, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("level", "rounding"), [(0.0, 0.0), (1000.0, 0.0), (1000.0, 1e-4)])
def test_features_that_do_not_vary_have_no_say(level, rounding):
    tables, targets, labels = problem(widths=(6,))
    tables[0][:, 4] = level + rounding * (labels == 1)
    params = fit(tables, targets).folded(jnp.ones(1))[0]
    np.testing.assert_array_equal(params["kernel"][4], 0.0)
    assert np.isfinite(params["bias"]).all()


def test_progress_reaches_its_total_although_training_ends_early():
    seen = []
    tables, targets, _ = problem(widths=(6,))
    config = TrainConfig(max_epochs=500, patience=2, minibatch=32, learning_rate=0.1)
    fitted = fit(tables, targets, config, lambda *step: seen.append(step))
    assert len(fitted.losses) == len(seen) < 500
    assert [done for done, _, _ in seen[:-1]] == list(range(1, len(seen)))
    assert seen[-1][:2] == (500, 500)
