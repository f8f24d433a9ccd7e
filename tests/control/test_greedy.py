"""The paper's search: what it finds is allowed, its steps are the paper's, and exact beats it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.control import greedy
from apparate_jax.control.thresholds import (
    budget_for,
    evaluate_thresholds,
    tune_first,
    tune_ladder,
    tune_thresholds,
)
from tests.control.cases import Case, small_windows, typical_window


def climb(case: Case, limit: int) -> list[float]:
    """The paper's search in plain Python."""
    errors, agrees, gains = case.valid
    ramps = errors.shape[1]

    def attempt(thresholds: list[np.float32]) -> tuple[float, int]:
        found = evaluate_thresholds(errors, agrees, gains, thresholds)
        return found.saving * case.samples, round(found.disagreement * case.samples)

    thresholds, steps = [np.float32(0)] * ramps, [0.1] * ramps
    while True:
        saving, wrong = attempt(thresholds)
        scores: dict[int, float] = {}
        trials, shrunk = {}, False
        for r in (r for r in range(ramps) if thresholds[r] < 1):
            raised = min(thresholds[r] + np.float32(steps[r]), np.float32(1))
            trials[r] = [*thresholds[:r], raised, *thresholds[r + 1 :]]
            trial_saving, trial_wrong = attempt(trials[r])
            if trial_wrong <= limit:
                scores[r] = (trial_saving - saving) / (max(trial_wrong - wrong, 0) + 1e-6)
            elif steps[r] > 0.01:
                steps[r], shrunk = max(steps[r] / 2, 0.01), True
        if scores:
            best = max(scores, key=lambda r: scores[r])
            thresholds = trials[best]
            steps[best] *= 2
        elif not shrunk:
            return [float(t) for t in thresholds]


@settings(max_examples=200, deadline=None)
@given(small_windows(12), st.sampled_from([0.0, 0.1, 0.25]))
def test_climbs_as_the_plain_search_does(case: Case, max_disagreement: float):
    found = tune_first(*case[:3], case.samples, max_disagreement, "greedy")
    plain = climb(case, budget_for(max_disagreement, case.samples))
    np.testing.assert_allclose(found.thresholds, plain, rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ramps", [3, 6])
def test_climbs_as_the_plain_search_does_on_whole_windows(ramps: int, seed: int):
    window = typical_window(512, ramps, seed)
    found = tune_thresholds(*window, 20 / 512, "greedy")
    np.testing.assert_allclose(found.thresholds, climb(Case(*window, 512), 20), rtol=1e-5)


@settings(max_examples=200, deadline=None)
@given(small_windows(12), st.sampled_from([0.0, 0.1, 0.25]))
def test_keeps_the_budget_and_never_beats_exact(case: Case, max_disagreement: float):
    found = tune_first(*case[:3], case.samples, max_disagreement, "greedy")
    optimum = tune_first(*case[:3], case.samples, max_disagreement, "exact")
    limit = budget_for(max_disagreement, case.samples)
    assert round(found.disagreement * case.samples) <= limit
    assert found.saving <= optimum.saving + 1e-6


@pytest.mark.parametrize("ramps", [1, 3, 6])
def test_exact_is_never_below_greedy_on_whole_windows(ramps: int):
    gains = []
    for seed in range(12):
        window = typical_window(512, ramps, seed)
        exact, climbed = (tune_thresholds(*window, 0.01, method) for method in ("exact", "greedy"))
        assert max(exact.disagreement, climbed.disagreement) <= 5 / 512
        assert exact.saving >= climbed.saving - 1e-5
        gains.append(exact.saving / climbed.saving)
    assert np.mean(gains) > 1.0


def test_climbs_in_doubling_steps_and_halves_down_to_a_hundredth():
    # all right up to 0.5, one wrong there: 0.1, 0.3, then the step of 0.4 breaks and is halved
    errors = np.append(np.linspace(0.0, 0.499, 99), 0.5).astype(np.float32)[:, None]
    agrees = np.append(np.ones(99, bool), False)[:, None]
    found = tune_thresholds(errors, agrees, [1.0], 0.0, "greedy")
    assert found.thresholds[0] == pytest.approx(0.5, abs=1e-6)
    assert found.disagreement == 0.0

    # the wrong one at 0.306: 0.3 + 0.4, 0.2, 0.1, 0.05, 0.025, 0.0125, 0.01 all break
    errors[-1] = 0.306
    found = tune_thresholds(errors, agrees, [1.0], 0.0, "greedy")
    assert found.thresholds[0] == pytest.approx(0.3, abs=1e-6)


def test_takes_the_ramp_that_saves_most():
    errors = np.full((10, 2), 0.05, np.float32)
    agrees = np.ones((10, 2), bool)
    agrees[0] = False
    found = tune_thresholds(errors, agrees, [5.0, 1.0], 0.1, "greedy")
    assert found.saving == pytest.approx(5.0)
    assert found.thresholds[0] >= 0.1


def test_the_artifact_steps_ten_times_finer():
    # the wrong one at 0.306: 0.3 is the paper's last step below it, 0.306 + less than 0.001 theirs
    errors = np.append(np.linspace(0.0, 0.305, 99), 0.306).astype(np.float32)[:, None]
    agrees = np.append(np.ones(99, bool), False)[:, None]
    paper, artifact = (
        tune_thresholds(errors, agrees, [1.0], 0.0, method).thresholds[0]
        for method in ("greedy", "greedy-artifact")
    )
    assert paper == pytest.approx(0.3, abs=1e-6)
    assert 0.3055 < artifact <= 0.306
    assert greedy.PAPER == (0.1, 0.01)
    assert greedy.ARTIFACT == (0.01, 0.001)


def test_below_zero_nobody_exits():
    found = tune_ladder(*typical_window(64, 2, seed=0), 64, [-1, 2], "greedy")
    assert found[0].tolist() == [0.0, 0.0]
    assert found[1].any()
