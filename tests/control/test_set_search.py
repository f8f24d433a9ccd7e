"""Searching sets: chunks, growth and ties."""

import itertools

import numpy as np
import pytest

from apparate_jax.control import set_search
from apparate_jax.control.thresholds import tune_thresholds
from tests.control.cases import typical_window


def ready(sites: int, limit: int = 2, costs: float = 0.0) -> set_search.Window:
    window = typical_window(128, sites, seed=sites)
    return set_search.prepare(*window, np.full(sites, costs), 128, limit, limit)


def test_scores_are_each_sets_own_tuning_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch):
    errors, agrees, savings = typical_window(128, 6, seed=6)
    sets = list(itertools.combinations(range(6), 3))
    whole = set_search.score(ready(6), sets)
    for columns, net, thresholds in zip(sets, whole.nets, whole.thresholds, strict=True):
        of = list(columns)
        alone = tune_thresholds(errors[:, of], agrees[:, of], savings[of], 2 / 128)
        assert net == pytest.approx(alone.saving, abs=1e-5)
        np.testing.assert_array_equal(thresholds, alone.thresholds)
    monkeypatch.setattr(set_search, "_CHUNK", 7)
    parts = set_search.score(ready(6), sets)
    np.testing.assert_array_equal(parts.nets, whole.nets)
    np.testing.assert_array_equal(parts.thresholds, whole.thresholds)


def test_growth_finds_the_best_single_ramp_and_never_scores_a_set_twice():
    window = ready(7, costs=0.2)
    everything = set_search.try_all(window, 3, None, lambda _: True)
    grown = set_search.grow(window, 3, None, lambda _: True)
    scored = [tuple(row) for scores in grown for row in scores.sets.tolist()]
    assert len(scored) == len(set(scored)) <= sum(len(s.sets) for s in everything)
    best, most = (max(s.nets.max() for s in found) for found in (grown, everything))
    assert best == pytest.approx(most, rel=0.02)
    assert grown[0].nets.max() == everything[0].nets.max()


def test_growth_keeps_to_what_is_allowed_and_fits():
    allowed = [(0,), (3,), (0, 3), (0, 3, 5), (1, 2)]
    grown = set_search.grow(ready(6), 3, allowed, lambda columns: columns != (0, 3, 5))
    scored = {tuple(row) for scores in grown for row in scores.sets.tolist()}
    assert scored == {(0,), (3,), (0, 3)}
    assert set_search.grow(ready(6), 3, [], lambda _: True) == []


def test_changed_sets_have_one_ramp_exchanged_dropped_or_added():
    found = set_search._changed((1, 2), range(4))
    assert found >= {(1,), (2,), (0, 1), (1, 3), (0, 2), (2, 3), (0, 1, 2), (1, 2, 3)}
    assert all(1 <= len(set(c)) == len(c) <= 3 and len({*c, 1, 2}) <= 3 for c in found)
    assert set_search._changed((), range(2)) == {(0,), (1,)}


def test_of_sets_that_are_alike_the_smallest_and_first_is_best():
    def scores(sets, nets):
        table = np.asarray(sets, np.int32)
        return set_search.Scores(table, np.asarray(nets), np.full(table.shape, 0.5, np.float32))

    pairs = scores([(0, 1), (0, 2)], [2.0, 2.0])
    assert set_search.best_of([pairs], 1.0)[0] == (0, 1)
    assert set_search.best_of([pairs, scores([(2,), (3,)], [1.0, 2.0 - 1e-7])], 1.0)[0] == (3,)
    assert set_search.best_of([pairs, scores([(2,)], [1.9])], 1.0)[0] == (0, 1)
    assert set_search.best_of([scores([(2,)], [0.0])], 1.0)[0] == ()
    assert set_search.best_of([], 1.0)[0] == ()


def test_many_sets_or_much_work_are_not_quick(monkeypatch: pytest.MonkeyPatch):
    window = ready(6)
    assert set_search.is_quick(window, 3, None)
    monkeypatch.setattr(set_search, "MAX_SETS", 41)
    assert set_search.is_quick(window, 3, None)
    monkeypatch.setattr(set_search, "MAX_SETS", 40)
    assert not set_search.is_quick(window, 3, None)
    assert set_search.is_quick(window, 3, [(0, 1), (2,)])
    monkeypatch.setattr(set_search, "MAX_WORK", 2 * 4)  # one pair shares 2 in 3 ways
    assert not set_search.is_quick(window, 3, [(0, 1), (2,)])
