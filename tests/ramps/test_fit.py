import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.ramps.config import TrainConfig
from apparate_jax.ramps.features import Features, Layout
from apparate_jax.ramps.fit import fit_heads
from apparate_jax.ramps.groups import by_width, make_groups, scales, standardised
from apparate_jax.ramps.heads import head_logits

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


def features_of(tables, targets):
    """A cache whose logits have these probabilities."""
    widths = tuple(table.shape[1] for table in tables)
    kinds = ("identity",) * len(tables)
    layout = Layout(tuple(range(len(tables))), kinds, widths, targets.shape[1])
    logits = np.log(np.maximum(targets, 1e-30)).astype(np.float32)
    return Features(layout, np.concatenate([*tables, logits], axis=1))


def fit(tables, targets, config=STEADY, progress=None, rows=ROWS):
    return fit_heads(features_of(tables, targets), *rows, config, progress)


def valid_logits(fitted, ramp):
    return fitted.logits(ramp, ROWS[1])


def test_ramps_of_equal_width_are_one_group():
    tables, targets, _ = problem()
    features = features_of(tables, targets)
    groups = make_groups(features, ROWS[0])
    assert by_width(features.layout) == ((0, 2), (1,))
    assert [group.members for group in groups] == [(0, 2), (1,)]
    first, second = standardised(features.layout, features.table[ROWS[0]], scales(groups))
    assert first.shape == (2, 160, 6) and second.shape == (1, 160, 4)
    np.testing.assert_allclose(first.mean(1), 0.0, atol=1e-5)
    np.testing.assert_allclose(first.std(1), 1.0, rtol=1e-4)


def test_the_mean_and_deviation_of_many_slices():
    rng = np.random.default_rng(0)
    table = rng.normal(100.0, 3.0, (1000, 5)).astype(np.float32)
    rows = rng.permutation(1000)[:700]
    (group,) = make_groups(features_of([table], np.full((1000, 2), 0.5)), rows)
    np.testing.assert_allclose(group.mean[0], table[rows].mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(1 / group.inverse_std[0], table[rows].std(0, dtype=np.float64), 1e-6)


def test_training_together_equals_training_each_alone():
    tables, targets, _ = problem()
    together = fit(tables, targets)
    for ramp, table in enumerate(tables):
        alone = fit([table], targets)
        np.testing.assert_allclose(
            valid_logits(together, ramp), valid_logits(alone, 0), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            together.losses[..., ramp], alone.losses[..., 0], rtol=1e-4, atol=1e-6
        )


def test_training_is_deterministic_and_the_seed_matters():
    tables, targets, _ = problem()
    first, again = fit(tables, targets), fit(tables, targets)
    np.testing.assert_array_equal(first.losses, again.losses)
    np.testing.assert_array_equal(valid_logits(first, 0), valid_logits(again, 0))
    other = fit(tables, targets, TrainConfig(max_epochs=6, patience=6, minibatch=32, seed=1))
    assert (np.asarray(valid_logits(other, 0)) != np.asarray(valid_logits(first, 0))).any()


def test_learning_approaches_the_best_linear_answer():
    tables, targets, _ = problem(widths=(6,))
    config = TrainConfig(max_epochs=300, patience=300, learning_rate=0.01, weight_decay=0.0)
    fitted = fit(tables, targets, config)
    features = features_of(tables, targets)
    scaling = scales(make_groups(features, ROWS[0]))
    standard = standardised(features.layout, features.table[ROWS[0]], scaling)[0][0]
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
    scores = jax.nn.log_softmax(valid_logits(fitted, 0))
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
        expected = valid_logits(fitted, ramp) / temperatures[ramp]
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


@pytest.mark.parametrize("style", ["hidden", "pooler"])
def test_a_hidden_layer_learns_what_a_linear_head_cannot(style):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 8)).astype(np.float32)
    labels = (x[:, 0] * x[:, 1] > 0).astype(int)
    targets = np.eye(2, dtype=np.float32)[labels]
    rows = np.arange(300), np.arange(300, 400)
    right = {}
    for name in ("linear", style):
        config = TrainConfig(style=name, learning_rate=0.03, max_epochs=100, patience=100)
        fitted = fit([x], targets, config, rows=rows)
        right[name] = (np.asarray(fitted.logits(0, rows[1])).argmax(1) == labels[300:]).mean()
    assert right["linear"] < 0.65 and right[style] > 0.8


@pytest.mark.parametrize("style", ["linear", "hidden", "pooler"])
def test_folded_parameters_give_the_calibrated_logits_on_raw_features(style):
    tables, targets, _ = problem()
    fitted = fit(tables, targets, TrainConfig(max_epochs=3, patience=3, style=style))
    heat = jnp.asarray([0.5, 2.0, 1.0])
    for ramp, params in enumerate(fitted.folded(heat)):
        found = head_logits(params, tables[ramp][ROWS[1]], style)
        expected = valid_logits(fitted, ramp) / heat[ramp]
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
