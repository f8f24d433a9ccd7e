"""The paper's policy: its parts by hand, and what it does on streams."""

import copy
from dataclasses import replace

import jax
import numpy as np
import pytest

from apparate_jax.control import paper
from apparate_jax.control import window as windows
from apparate_jax.control.config import ControlConfig
from apparate_jax.control.interface import Controller, Observation
from apparate_jax.control.latency import LatencyModel
from apparate_jax.control.thresholds import first_exits
from apparate_jax.core import Profile, ShapeProfile
from apparate_jax.ramps.placement import PlacementConfig

TRAINED = (0, 1, 2, 3, 4, 5, 6, 7)
SHAPE = ShapeProfile(4, 9.0, 9.0, (), tuple(float(s + 1) for s in range(8)), (0.1,) * 8, 1.0)
LATENCY = LatencyModel(Profile("test", "0", (), (SHAPE,)))
"""An exit at a site alone saves 8 - site ms, a ramp costs 0.1 ms."""
FREE = PlacementConfig(ramp_budget=10.0, max_ramps=3)
CONFIG = ControlConfig(accuracy=0.9, policy="paper")


def setting(preset: paper.Preset = paper.PRESETS["paper"], placement=FREE) -> paper.Setting:
    return paper.Setting(preset, 0.1, TRAINED, LATENCY, placement)


def state(sites, thresholds, errors, due_in: int = 0) -> paper.State:
    rows = windows.Rows(np.float32(errors), np.ones(np.shape(errors), bool), 4)
    window = windows.push(windows.init(512, len(sites)), rows)
    return paper.State(sites, thresholds, window, (), due_in)


def batch(plan, errors, agrees) -> Observation:
    """What a server that obeys the plan sees, of the errors and answers of all sites."""
    at = list(plan.sites)
    exits = first_exits(errors[:, at], plan.thresholds).astype(np.int32)
    return Observation(plan.sites, errors[:, at], agrees[:, at], exits, 4)


def drive(controller: Controller, samples: int, good: int, wrong=0.0, seed=0, start=None):
    """A stream whose answers from site ``good`` on are sure and, but for some, right."""
    rng, now = np.random.default_rng(seed), start or controller.init()
    seen = []
    for _ in range(samples // 4):
        errors = np.full((4, 8), 0.8, np.float32)
        errors[:, good:] = rng.uniform(0.0, 0.2, (4, 8 - good))
        agrees = rng.random((4, 8)) >= wrong
        agrees[:, :good] = False
        plan, now, info = controller.update(now, batch(controller.plan(now), errors, agrees))
        assert plan == controller.plan(now)
        assert len(now.window.aside) <= 100, "what was put aside does not pile up"
        seen.append((plan, info))
    return now, seen


def test_utilities_by_hand():
    errors = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.9, 0.9]]
    utilities, rates = paper.measure(setting(), state((2, 5), (0.5, 0.5), errors))
    # Active together, site 2 saves 6 + 0.1 (the later ramp), each costs those who go on.
    assert utilities == pytest.approx([6.1 - 3 * 0.1, 3.0 - 2 * 0.1], abs=1e-5)
    assert rates == [0.25, 0.25]


def test_utilities_are_of_the_answers_since_the_last_adjustment():
    errors = [[0.1]] * 100 + [[0.9]] * 8
    utilities, rates = paper.measure(setting(), state((2,), (0.5,), errors, due_in=120))
    assert rates == [0.0]
    assert utilities == pytest.approx([-0.8], abs=1e-5)


def test_intervals_lie_between_what_was_deactivated():
    assert paper._intervals([2, 3, 4, 5, 6, 7], {4: 0.1, 7: 0.0}) == [([2, 3], 4), ([5, 6], 7)]
    assert paper._intervals([5, 6], {}) == [([5, 6], None)]
    assert paper._intervals([5], {5: 0.3, 1: 0.2}) == []


@pytest.mark.parametrize(
    ("kept", "gone", "expected"),
    [
        ({}, {}, 4),  # the middle of all
        ({4: 0.5}, {}, 6),  # the middle of what is behind the last positive ramp
        ({}, {4: 0.0, 7: 0.9}, 6),  # at most 0.9 leave at 6, nobody at 2
        ({}, {4: 0.8, 7: 0.0}, 2),  # 2 has the rate of 4 and more to save than 6
        ({}, {3: 0.5, 7: 0.5}, 1),  # bounds: 0.5 * 7 - 0.05 at 1, 1.0 * 3 at 5
        ({}, {3: 0.3, 7: 0.7}, 5),  # 0.3 * 7 - 0.07 at 1, 1.0 * 3 at 5
        ({}, {7: 0.0}, None),
        ({7: 0.5}, {}, None),
        ({6: 0.2}, {2: 0.4}, 7),
    ],
)
def test_candidates_by_hand(kept, gone, expected):
    assert paper.candidate(setting(), kept, gone, 4) == expected


def test_the_later_half_is_looked_at_when_no_middle_fits():
    heads = (0.1, 0.1, 0.1, 0.1, 50.0, 0.1, 50.0, 0.1)
    latency = LatencyModel(Profile("test", "0", (), (replace(SHAPE, ramp_ms=heads),)))
    placement = PlacementConfig(ramp_budget=0.1)
    tight = setting(placement=placement)._replace(latency=latency)
    assert paper.candidate(tight, {}, {}, 4) == 7  # 4 and 6 are over the budget


def test_nothing_is_added_over_the_budget():
    full = PlacementConfig(ramp_budget=10.0, max_ramps=1)
    assert paper.candidate(setting(placement=full), {2: 0.1}, {}, 4) is None
    poor = PlacementConfig(ramp_budget=0.0)
    assert paper.candidate(setting(placement=poor), {}, {}, 4) is None


@pytest.mark.parametrize(
    ("sites", "utilities", "most", "expected"),
    [
        ((2, 5), [1.0, 3.0], 3, (2, 4, 5)),  # before the best
        ((2, 5), [1.0, 3.0], 2, (1, 5)),  # no room: the lowest moves
        ((4, 5), [1.0, 3.0], 3, (3, 5)),  # no site before the best
        ((0, 1), [1.0, 3.0], 3, (0, 1)),  # nor before the lowest
        ((0, 5), [3.0, 1.0], 3, (0, 4)),
    ],
)
def test_growing_by_hand(sites, utilities, most, expected):
    placement = PlacementConfig(ramp_budget=10.0, max_ramps=most)
    assert paper.grow(setting(placement=placement), sites, utilities) == expected


def test_ramps_that_stay_keep_thresholds_and_feedback():
    now = state((2, 5), (0.3, 0.4), [[0.1, 0.2]])
    now = now._replace(window=windows.settle(now.window))
    after = paper._activated(now, (4, 5))
    assert after.thresholds == (0.0, 0.4)
    np.testing.assert_array_equal(after.window.errors[0], np.float32([np.nan, 0.2]))
    assert now.window.errors.shape == (512, 2) and now.sites == (2, 5)


def make(policy="paper", sites=(2, 5), placement=FREE, **changes) -> Controller:
    config = replace(CONFIG, policy=policy, **changes)
    return paper.make_controller(config, sites, TRAINED, LATENCY, placement)


def test_it_opens_at_the_first_adjustment():
    _, seen = drive(make(), 128, good=2)
    assert all(plan.thresholds == (0.0, 0.0) for plan, _ in seen[:-1])
    assert seen[-1][0].sites == (2,), "nobody is left for the other one"
    assert seen[-1][0].thresholds[0] > 0.19


def test_it_tunes_when_the_last_answers_are_wrong():
    controller = make(accuracy=0.99)
    now, _ = drive(controller, 128, good=2)
    plan = controller.plan(now)
    errors, agrees = np.full((4, 8), 0.1, np.float32), np.ones((4, 8), bool)
    _, now, info = controller.update(now, batch(plan, errors, agrees))
    assert info.tuning is None
    plan, now, info = controller.update(now, batch(plan, errors, ~agrees))
    assert info.events[0].startswith("tuned") and info.tuning is not None
    assert plan.thresholds[0] <= 0.1 + 1e-6


def test_it_moves_ramps_to_better_sites():
    now, seen = drive(make(sites=(0, 1)), 128 * 20, good=4)
    assert not {0, 1} & set(now.sites), "they never let anybody out"
    assert set(now.sites) & {4, 5} and max(now.thresholds) > 0.1
    assert all(len(plan.sites) <= 3 for plan, _ in seen)


def test_without_a_useful_ramp_it_goes_on_trying_and_recovers():
    controller = make()
    errors = np.full((4, 8), 0.9, np.float32)
    now, tried = controller.init(), set()
    for _ in range(32 * 20):
        wrong = np.zeros((4, 8), bool)
        plan, now, _ = controller.update(now, batch(controller.plan(now), errors, wrong))
        tried |= set(plan.sites)
        assert max(plan.thresholds, default=0.0) == 0.0 or not (errors < max(plan.thresholds)).any()
    assert len(tried) > 3
    now, _ = drive(controller, 128 * 12, good=2, start=now)
    assert max(now.thresholds) > 0.1


def test_batches_of_other_ramps_say_nothing():
    controller = make()
    before = controller.init()
    other = Observation(
        (3,), np.zeros((4, 1), np.float32), np.zeros((4, 1), bool), np.int32([0] * 4)
    )
    _, after, info = controller.update(before, other)
    assert after is before and info.tuning is None


@pytest.mark.parametrize("policy", ["paper", "artifact"])
def test_updates_are_pure_and_deterministic(policy):
    controller = make(policy)
    now, _ = drive(controller, 128 * 4 - 4, good=2, wrong=0.1)
    errors, agrees = np.full((4, 8), 0.05, np.float32), np.zeros((4, 8), bool)
    seen = batch(controller.plan(now), errors, agrees)
    frozen = copy.deepcopy((now, seen))
    first, second = controller.update(now, seen), controller.update(now, seen)
    for a, b in ((first, second), ((now, seen), frozen)):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y)


def test_presets():
    assert paper.PRESETS["paper"][:5] == ("greedy", 1.0, 16, 512, 128)
    text, video = paper.PRESETS["artifact"], paper.PRESETS["artifact-video"]
    assert (text.adjust_every, text.cut, text.max_ramps) == (100, 0.1, 2)
    assert (video.adjust_every, video.cut, video.max_ramps) == (30, 0.0, 3)
    for preset in (text, video):
        assert preset.method == "greedy-artifact" and preset.in_batches
        assert preset.tune_frac * 0.01 == pytest.approx(0.0001)
        assert (preset.check_window, preset.tune_window) == (1, 4)
        tail = preset._replace(max_ramps=None)
        two = setting(tail, PlacementConfig(ramp_budget=0.0))
        assert two.fits((1, 2)) and not two.fits((1, 2, 3, 4, 5)), "5 % whatever the placement"
    assert setting(text).max_ramps == 2 and setting(video).max_ramps == 3


def test_the_artifact_adjusts_every_so_many_batches():
    _, seen = drive(make("artifact"), 4 * 100, good=2)
    assert all(plan.thresholds == (0.0, 0.0) for plan, _ in seen[:-1])
    assert max(seen[-1][0].thresholds) > 0.1


@pytest.mark.parametrize("name", ["artifact", "artifact-video"])
def test_the_artifact_cuts_thresholds_of_wrong_ramps(name):
    preset = paper.PRESETS[name]
    errors, agrees = np.full((4, 2), 0.1, np.float32), np.array([[False, True]] * 4)
    seen = Observation((2, 5), errors, agrees, np.int32([0, 0, 1, 2]), 4)
    after = paper.cut(setting(preset), state((2, 5), (0.4, 0.5), errors), seen)
    assert after.thresholds == pytest.approx((0.4 * preset.cut, 0.5))
