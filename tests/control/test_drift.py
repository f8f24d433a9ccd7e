"""The CUSUM: quiet on what was planned, quick on what is worse, by ramp."""

import numpy as np
import pytest

from apparate_jax.control import drift


def play(shares, wrong, exits, seed=0, ramp=0):
    """Exits at one ramp until an alarm; how many it took, None if there was none."""
    rng = np.random.default_rng(seed)
    state = drift.start(shares)
    for count in range(1, exits + 1):
        state = drift.observe(state, [ramp], [bool(rng.random() >= wrong)], 2)
        if drift.alarms(state):
            return count, state
    return None, state


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
def test_what_was_planned_is_no_alarm(share):
    found = [play((share, share), max(share, 0.01), 10_000, seed)[0] for seed in range(10)]
    assert sum(f is not None for f in found) <= 1


@pytest.mark.parametrize(("share", "wrong"), [(0.0, 0.2), (0.02, 0.3), (0.05, 0.5)])
def test_what_is_much_worse_is_found_within_a_hundred_exits(share, wrong):
    found = [play((share, share), wrong, 1000, seed)[0] for seed in range(20)]
    assert all(f is not None for f in found)
    assert np.median(found) <= 100


def test_only_the_ramp_that_went_bad_and_since_when():
    state = drift.start((0.01, 0.01))
    for _ in range(50):
        state = drift.observe(state, [0, 1], [True, True], 4)
    assert state.scores == (0.0, 0.0) and state.since == (0, 0)
    for _ in range(8):
        state = drift.observe(state, [0, 1], [True, False], 4)
    assert drift.alarms(state) == (1,)
    assert state.since == (0, 32)
    state = drift.reset(state, (1,))
    assert drift.alarms(state) == () and state.since == (0, 0)


def test_a_new_plan_keeps_the_evidence():
    state = drift.observe(drift.start((0.01,)), [0], [False], 1)
    again = drift.replan(state, (0.2,))
    assert again.scores == state.scores
    assert again.down < state.down


def test_nobody_left_says_nothing():
    state = drift.start((0.01,))
    assert drift.observe(state, [], [], 8) == state


def test_five_wrong_exits_in_a_row_are_no_alarm_and_six_are():
    state = drift.start((0.0,))
    for count in range(1, 7):
        state = drift.observe(state, [0], [False], 1)
        assert bool(drift.alarms(state)) == (count == 6)
