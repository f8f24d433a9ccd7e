"""Choosing the active set on shadow batches."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.control import adjust
from apparate_jax.control import window as windows
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import Observation, Shadow
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.load import EAGER
from apparate_jax.core import Profile, ShapeProfile
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.ramps.train import Validation
from tests.control.cases import brute_force

SITES = (1, 3, 4, 6)
SHAPE = ShapeProfile(4, 9.0, 9.0, (), tuple(float(s + 1) for s in range(8)), (0.1,) * 8, 1.0)
LATENCY = LatencyModel(Profile("test", "0", (), (SHAPE,)))
CONFIG = ControlConfig(
    accuracy=0.9,
    window=64,
    tune_every=8,
    cooldown=4,
    shadow_window=32,
    adjust_every=8,
    min_shadow=8,
    others=0.0,
)
FREE = PlacementConfig(ramp_budget=10.0, max_ramps=2)


def held_out(rng: np.random.Generator, samples: int = 32) -> Validation:
    errors = rng.choice(np.float32([0.1, 0.2, 0.3, 0.6]), (samples, 4))
    answers = (rng.random((samples, 4)) < errors * 0.5).astype(np.int32)
    return Validation(SITES, np.arange(samples), errors, answers, np.zeros(samples, np.int32))


def options(given: Validation, config=CONFIG, placement=FREE, num_bytes=None) -> adjust.Options:
    return adjust.make_options(config, given, LATENCY, placement, num_bytes)


def chosen(opts: adjust.Options, current=(), config=CONFIG) -> tuple[tuple[int, ...], str]:
    known = adjust.start(config, opts)._replace(since=config.adjust_every)
    _, sites, why = adjust.choose(config, opts, known, current)
    return sites, why


def net(opts: adjust.Options, sites: tuple[int, ...]) -> float:
    """What a set saves with the best thresholds, its costs taken off."""
    given, of = opts.validation, [SITES.index(s) for s in sites]
    limit = int(adjust.BUDGET_FRAC * 0.1 * len(given.errors))
    best = brute_force(given.errors[:, of], given.agrees[:, of], opts.savings_ms[of], limit)
    return best.saving / len(given.errors) - float(opts.costs_ms[of].sum())


@pytest.mark.parametrize("seed", range(6))
def test_the_best_set_is_chosen(seed: int):
    opts = options(held_out(np.random.default_rng(seed)))
    sites, why = chosen(opts)
    every = [c for size in (1, 2) for c in itertools.combinations(SITES, size)]
    assert net(opts, sites) == pytest.approx(max(net(opts, c) for c in every), abs=1e-5)
    assert f"give way to sites {list(sites)}" in why


def late_or_early() -> Validation:
    """Of 32 samples the first ramp lets 12 out, and of the others the last one lets out all.

    The second one lets 18 out. No answer is wrong.
    """
    sample = np.arange(32)
    leaves = [sample < 12, sample < 18, np.zeros(32, bool), np.ones(32, bool)]
    errors = np.stack([np.where(one, 0.1, 1.0) for one in leaves], axis=1).astype(np.float32)
    answers = np.where(errors < 0.5, 0, 1).astype(np.int32)
    return Validation(SITES, np.arange(32), errors, answers, np.zeros(32, np.int32))


def test_what_others_are_saved_counts_where_batches_are_held():
    opts, theirs = options(late_or_early()), replace(CONFIG, others=3.0)
    assert opts.savings_ms.tolist() == [7.0, 5.0, 4.0, 2.0]
    # for oneself 12 x 7 and 20 x 2 ms are more than 18 x 5 and 14 x 2
    assert chosen(opts, (3,))[0] == (1, 6)
    # but 18 x 5 ms of the device are more than 12 x 7
    sites, why = chosen(opts, (3,), theirs)
    assert sites == (3, 6) and "what others are saved included" in why
    assert chosen(opts, (3, 6), theirs)[0] == (3, 6)


def test_shadow_batches_are_frequent_until_a_choice_can_be_made():
    opts = options(held_out(np.random.default_rng(0), 4))
    known = adjust.start(CONFIG, opts)
    assert adjust.shadow_every(CONFIG, known) == EAGER
    assert adjust.shadow_every(replace(CONFIG, shadow_every=1), known) == 1
    known = adjust.observe(known, observation(4))
    known = known._replace(window=windows.settle(known.window))
    assert adjust.shadow_every(CONFIG, known) == CONFIG.shadow_every


def test_sets_that_are_alike_do_not_flap():
    config = replace(CONFIG, shadow_window=256)
    flips = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        answers = np.tile((rng.random(256) < 0.05).astype(np.int32)[:, None], (1, 4))
        errors = rng.uniform(0.0, 0.3, (256, 4)).astype(np.float32)
        given = Validation(SITES, np.arange(256), errors, answers, np.zeros(256, np.int32))
        opts = options(given, config)._replace(savings_ms=np.float32([4.02, 4.01, 4.0, 4.0]))
        flips += chosen(opts._replace(max_ramps=1), (3,), config)[0] != (3,)
    assert flips <= 2, "one standard error lets a few pass, not more"


def test_a_clearly_better_set_does_take_over():
    given = held_out(np.random.default_rng(0))
    errors = np.full((32, 4), 0.6, np.float32)
    errors[:, 0] = 0.1
    given = replace(given, errors=errors, predictions=np.zeros((32, 4), np.int32))
    assert 1 in chosen(options(given), (6,))[0]


def test_nothing_is_chosen_before_it_is_due_or_with_too_few_samples():
    opts = options(held_out(np.random.default_rng(0)))
    known = adjust.start(CONFIG, opts)
    assert adjust.choose(CONFIG, opts, known, ()) == (known, (), "")
    few = options(held_out(np.random.default_rng(0), 4))
    assert chosen(few)[0] == ()


def test_the_budgets_are_kept():
    given = held_out(np.random.default_rng(0))
    given = replace(given, predictions=np.zeros((32, 4), np.int32))
    assert chosen(options(given, placement=replace(FREE, ramp_budget=0.005)))[0] == ()
    assert len(chosen(options(given, placement=replace(FREE, ramp_budget=0.012)))[0]) == 1
    sizes = {1: 9 * 2**20, 3: 2**20, 4: 9 * 2**20, 6: 2**20}
    small = replace(FREE, memory_budget_mb=2.0)
    found = chosen(options(given, placement=small, num_bytes=sizes))[0]
    assert found and set(found) <= {3, 6}


def observation(n: int, sites=SITES, shape: int = 4, error: float = 0.1) -> Observation:
    shadow = Shadow(
        sites, np.full((n, len(sites)), error, np.float32), np.ones((n, len(sites)), bool)
    )
    none = (np.zeros((n, 0), np.float32), np.zeros((n, 0), bool), np.zeros(n, np.int32))
    return Observation((), *none, shape, 0, shadow)


def test_a_shadow_of_other_sites_is_refused():
    known = adjust.start(CONFIG, options(held_out(np.random.default_rng(0))))
    with pytest.raises(ConfigError, match=r"sites \[1, 3\], expected \[1, 3, 4, 6\]"):
        adjust.observe(known, observation(2, (1, 3)))


def test_forgetting_keeps_the_share_that_shadow_batches_have():
    known = adjust.start(CONFIG, options(held_out(np.random.default_rng(0))))
    for _ in range(4):
        known = adjust.observe(known, observation(4))
        known = adjust.observe(known, observation(12)._replace(shadow=None))
    assert (known.answers, known.seen, known.since) == (64, 16, 64)
    kept = adjust.forget(known, 40)
    assert kept.window.filled == 10, "a quarter of the answers was in shadow batches"
    assert (kept.window.errors[:10] == np.float32(0.1)).all()


def test_a_new_window_has_its_columns_and_samples_in_order():
    known = adjust.start(CONFIG, options(held_out(np.random.default_rng(0))))
    known = known._replace(window=windows.init(32, 4))
    rows = np.arange(24, dtype=np.float32).reshape(6, 4) / 24
    for part in (rows[:2], rows[2:]):
        more = windows.Rows(part, part > 0.5, 4)
        known = known._replace(window=windows.push(known.window, more))
    window = adjust.seed(known, (3, 6), 16)
    assert window.errors.shape == (16, 2) and window.filled == 6
    np.testing.assert_array_equal(window.errors[:6], rows[:, [1, 3]])
    np.testing.assert_array_equal(window.agrees[:6], rows[:, [1, 3]] > 0.5)
    assert window.shapes[:6].tolist() == [4] * 6
    assert adjust.seed(known, (3, 6), 4).errors[:4].tolist() == rows[2:, [1, 3]].tolist()
