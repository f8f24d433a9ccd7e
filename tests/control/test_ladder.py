"""The ladder of thresholds: one step for each budget."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.control import guard, ladder
from apparate_jax.control import window as windows
from apparate_jax.control.bounds import trusted_budgets
from apparate_jax.control.config import PROMISES, ControlConfig
from apparate_jax.control.thresholds import first_exits

CONFIG = ControlConfig(
    accuracy=0.9, window=64, tune_every=8, cooldown=4, shadow_window=64, min_shadow=16
)
SAVINGS = np.float32([5.0, 3.0])
LEVELS = ladder.LEVELS["long-run"]
BUDGETS = trusted_budgets(64, np.asarray(LEVELS) * 0.1, ladder.DOUBT)
BUDGETS[0] = 0


def window(seed: int) -> windows.Window:
    rng = np.random.default_rng(seed)
    errors = rng.random((64, 2)).astype(np.float32)
    agrees = rng.random((64, 2)) > errors * 0.6
    return windows.settle(windows.push(windows.init(64, 2), windows.Rows(errors, agrees, 1)))


@pytest.mark.parametrize("promise", PROMISES)
def test_levels_rise_from_nothing(promise):
    levels = ladder.LEVELS[promise]
    assert levels[0] == 0.0 and list(levels) == sorted(set(levels))
    config = replace(CONFIG, promise=promise)
    assert ladder.max_budget(config) >= levels[-1] * 0.1 * CONFIG.samples - 1e-9
    assert ladder.tune(config, window(0), SAVINGS).levels == levels


def test_levels_reach_as_far_as_the_guard_asks():
    assert LEVELS[-1] > 1.0 and LEVELS[-1] > guard.BASE
    assert ladder.LEVELS["window"][-1] == guard.WINDOW_BASE


@pytest.mark.parametrize("seed", range(5))
def test_every_step_keeps_to_its_budget_and_saves_no_less_than_the_one_below(seed: int):
    seen = window(seed)
    found = ladder.tune(CONFIG, seen, SAVINGS)
    for thresholds, budget, saved, share in zip(
        found.thresholds, BUDGETS, found.savings_ms, found.disagreement, strict=True
    ):
        exits = first_exits(seen.errors, thresholds)
        rows = np.flatnonzero(exits < 2)
        wrong = int((~seen.agrees[rows, exits[rows]]).sum())
        assert wrong <= budget and share == pytest.approx(wrong / 64)
        assert saved == pytest.approx(float(SAVINGS[exits[rows]].sum()) / 64)
    assert found.thresholds[0] == (0.0, 0.0) and found.savings_ms[0] == 0.0
    assert np.all(np.diff(found.savings_ms) >= -1e-6)
    assert found.savings_ms[-1] > found.savings_ms[1]


def test_a_few_samples_open_nothing():
    seen = windows.push(windows.init(64, 2), windows.Rows(*(x[:5] for x in window(0)[:2]), 1))
    found = ladder.tune(CONFIG, windows.settle(seen), SAVINGS)
    assert set(found.thresholds) == {(0.0, 0.0)}, "5 samples say nothing of one in ten"


def test_wrong_shares_are_of_the_exits_at_each_ramp():
    errors, agrees = np.full((64, 2), 0.1, np.float32), np.ones((64, 2), bool)
    agrees[:4, 0] = False
    seen = windows.settle(windows.push(windows.init(64, 2), windows.Rows(errors, agrees, 1)))
    found = ladder.tune(CONFIG, seen, SAVINGS)
    assert found.wrong_shares[1] == (0.0, 0.0) and found.thresholds[1][0] == 0.1 * np.float32(1)
    assert found.wrong_shares[-1] == (4 / 64, 0.0)


@pytest.mark.parametrize("step", range(len(LEVELS)))
def test_a_level_has_its_own_step(step: int):
    found, level = ladder.tune(CONFIG, window(0), SAVINGS), LEVELS[step]
    assert ladder.step_for(found, level) == step
    assert ladder.step_for(found, level + 0.01) == step
    assert ladder.step_for(found, level - 0.01) == step - 1


def test_closed_lets_nobody_out():
    found = ladder.closed(3)
    assert set(found.thresholds) == {(0.0,) * 3} and found.levels == (0.0,)
    assert set(found.savings_ms) == {0.0} == set(found.disagreement)
    assert ladder.tuning(found, 0).thresholds.tolist() == [0.0] * 3
