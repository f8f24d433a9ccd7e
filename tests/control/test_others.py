"""What early answers are worth to others, and what that changes: by hand."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.control import ladder, others
from apparate_jax.control import window as windows
from apparate_jax.control.config import ControlConfig
from apparate_jax.errors import ConfigError

SAVINGS = np.array([7.0, 2.0], np.float32)
CONFIG = ControlConfig(accuracy=0.99, promise="none", window=400, tune_every=8, cooldown=4)


def test_where_a_hold_frees_most():
    errors = np.array([[0.1, 0.1], [0.5, 0.1], [0.5, 0.5], [0.5, 0.1]], np.float32)
    left = others.left_by(errors, np.array([0.2, 0.2], np.float32))
    assert left.tolist() == [0.25, 0.75]
    assert others.hold_of(SAVINGS, left) == 0  # 0.25 x 7 ms are more than 0.75 x 2
    assert others.hold_of(np.array([4, 2], np.float32), left) == 1
    assert others.hold_of(SAVINGS, np.zeros(2)) is None
    assert others.hold_of(np.zeros(0, np.float32), np.zeros(0)) is None


def test_nothing_is_known_without_samples():
    nothing = np.zeros((0, 2), np.float32)
    assert others.left_by(nothing, np.array([0.2, 0.2], np.float32)).tolist() == [1.0, 1.0]


def test_only_who_leaves_in_time_saves_others():
    np.testing.assert_array_equal(others.with_others(SAVINGS, 0, 1.0), [14, 2])
    np.testing.assert_array_equal(others.with_others(SAVINGS, 1, 0.5), [8, 3])
    assert others.with_others(SAVINGS, 0, 0.0) is SAVINGS
    assert others.with_others(SAVINGS, None, 1.0) is SAVINGS


def window() -> windows.Window:
    """400 samples with one wrong answer at each ramp.

    The first ramp lets 200 out without one, and 20 more with it; the second 230, and 70 more.
    """
    samples = np.arange(400)
    first = np.where(samples < 200, 0.1, np.where(samples < 220, 0.3, 0.9))
    second = np.where(samples < 230, 0.1, np.where(samples < 300, 0.3, 0.9))
    errors = np.stack([first, second], axis=1).astype(np.float32)
    agrees = errors < 0.5  # whoever stays would be wrong
    agrees[219, 0] = agrees[299, 1] = False
    return windows.settle(windows.push(windows.init(400, 2), windows.Rows(errors, agrees, 1)))


def test_wrong_answers_are_spent_where_they_are_worth_most():
    config = replace(CONFIG, accuracy=1 - 1 / 200)  # one wrong answer of 400 is trusted
    # for oneself: 20 more at the first save 5 ms each, which is less than 70 at the second, 2 each
    alone = ladder.tune(config, window(), SAVINGS)
    assert [t > 0.5 for t in alone.thresholds[-1]] == [False, True]
    # with others, held behind the first: 20 x 12 ms against 70 x 2
    worth = others.with_others(SAVINGS, 0, 1.0)
    both = ladder.tune(config, window(), SAVINGS, worth)
    assert [t > 0.5 for t in both.thresholds[-1]] == [True, False]
    assert alone.savings_ms[-1] == pytest.approx((200 * 7 + 100 * 2) / 400)
    assert both.savings_ms[-1] == pytest.approx((220 * 7 + 10 * 2) / 400), "of its own only"


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_is_none(value):
    with pytest.raises(ConfigError, match=r"others is .*, expected a number of at least 0"):
        ControlConfig(others=value)
