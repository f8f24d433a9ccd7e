"""Labels of a fixed camera's frames: on synthetic scenes whose truth is known."""

import numpy as np
import pytest


@pytest.fixture
def motion(example):
    return example("motion")


def scene(frames=120, person=slice(40, 80), level=100):
    """A noisy empty room that somebody enters, stands still in, and leaves."""
    rng = np.random.default_rng(0)
    grey = rng.integers(level - 3, level + 4, (frames, 54, 96))
    grey[person, 10:40, 30:45] = 220
    return grey.astype(np.uint8)


def test_somebody_who_stands_still_stays_in_view(motion):
    states = motion.in_view(scene())
    np.testing.assert_array_equal(np.flatnonzero(states), np.arange(40, 80))


def test_the_share_is_that_of_the_pixels_that_differ(motion):
    shares = motion.foreground_share(scene(), motion.MotionConfig())
    assert shares[60] == pytest.approx(30 * 15 / (54 * 96))
    assert shares[[0, 39, 80, 119]].max() == 0.0


def test_the_background_follows_light_that_changes_slowly(motion):
    grey = scene(frames=200, person=slice(150, 180))
    drift = np.linspace(0, 60, 200).astype(np.uint8)[:, None, None]
    states = motion.in_view(np.where(grey == 220, 250, grey + drift).astype(np.uint8))
    np.testing.assert_array_equal(np.flatnonzero(states), np.arange(150, 180))


@pytest.mark.parametrize("gain", [0.5, 0.7, 1.5])
def test_an_exposure_that_is_late_to_recover_is_not_something_in_view(motion, gain):
    grey = scene(frames=160, person=slice(40, 60), level=120).astype(float)
    grey[45:75] *= gain
    states = motion.in_view(grey.clip(0, 255).astype(np.uint8))
    np.testing.assert_array_equal(np.flatnonzero(states), np.arange(40, 60))


def test_hysteresis_keeps_its_state_between_the_limits(motion):
    values = np.array([0.0, 0.5, 1.5, 0.5, 0.9, 0.1, 0.5])
    states = motion.hysteresis(values, low=0.2, high=1.0)
    assert states.tolist() == [False, False, True, True, True, False, False]


@pytest.mark.parametrize("window", [1, 3, 7])
def test_majority_agrees_with_counting(motion, window):
    states = np.random.default_rng(window).random(60) < 0.5
    half = window // 2
    counted = [
        2 * states[max(0, i - half) : i + half + 1].sum()
        > len(states[max(0, i - half) : i + half + 1])
        for i in range(len(states))
    ]
    np.testing.assert_array_equal(motion.majority(states, window), counted)


def test_majority_removes_a_short_flip(motion):
    states = np.zeros(30, bool)
    states[12:14] = True
    assert motion.flips(states) == 2
    assert motion.flips(motion.majority(states, 5)) == 0


def test_an_even_window_is_refused(motion):
    with pytest.raises(ValueError, match="odd"):
        motion.majority(np.zeros(3, bool), 2)
