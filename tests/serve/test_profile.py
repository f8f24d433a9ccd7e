"""Profiles: complete, robust to outliers, and the same after a trip to disk."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.errors import CheckpointError
from apparate_jax.serve import profile as profiles
from tests.serve import models


@pytest.fixture(scope="module")
def programs():
    made = models.programs(models.mlp(), (1, 2))
    made.warm_atomic()
    made.warm_merged(())
    made.warm_merged((0, 1))
    return made


@pytest.fixture(scope="module")
def measured(programs):
    return profiles.measure(programs, (0, 1), budget_s=0.01)


def test_only_what_compares_with_the_original_is_measured_again(programs, measured):
    found = profiles.measure_again(programs, measured, budget_s=0.01)
    assert found != measured
    for now, before in zip(found.shapes, measured.shapes, strict=True):
        assert 0 < now.release_ms[0] <= now.release_ms[1] <= now.total_ms
        pair = {key: getattr(before, key) for key in profiles._Pair._fields}
        assert replace(now, **pair) == before


def test_every_shape_stage_and_ramp_is_measured(measured):
    assert measured.device == profiles.device_name()
    assert [shape.batch for shape in measured.shapes] == [1, 2]
    for shape in measured.shapes:
        assert len(shape.release_ms) == len(shape.site_ms) == len(shape.ramp_ms) == 2
        assert 0 < shape.site_ms[0] < shape.site_ms[1]
        assert min(shape.ramp_ms) > 0
        assert 0 < shape.release_ms[0] <= shape.release_ms[1] <= shape.total_ms
        assert list(shape.savings_ms) == sorted(shape.savings_ms, reverse=True)
        assert shape.overhead_frac == pytest.approx(shape.total_ms / shape.vanilla_ms - 1)


def test_how_single_runs_spread_and_what_the_engine_adds(measured):
    assert 0 <= measured.handling_ms < 1000
    for shape in measured.shapes:
        assert len(shape.spread) == profiles.SPREAD
        assert list(shape.spread) == sorted(shape.spread)
        assert 0 < shape.spread[0] <= 1 <= shape.spread[-1]


def test_the_spread_by_hand():
    spread = profiles._spread(np.arange(1.0, 18.0), 2.0)
    assert spread == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


def test_a_profile_of_an_older_version_is_read(measured, tmp_path):
    path = tmp_path / "profile.json"
    profiles.save_profile(measured, path)
    old = json.loads(path.read_text())
    del old["handling_ms"]
    for shape in old["shapes"]:
        del shape["spread"]
    path.write_text(json.dumps(old))
    read = profiles.load_profile(path)
    assert read.handling_ms == 0.0 and read.shapes[0].spread == ()


def test_a_shape_between_is_served_by_the_next(measured):
    assert measured.at(1).batch == 1
    assert measured.at(2).batch == 2
    assert measured.at(7).batch == 2


def test_medians_are_robust_to_slow_rounds():
    values = itertools.chain([9.0], itertools.cycle([1.0, 1.0, 1.0, 1.0, 100.0]))
    ticks = itertools.count()
    rounds = profiles._rounds(lambda: [next(values)], 5.0, lambda: float(next(ticks)))
    medians = profiles._medians(rounds)
    assert medians == [1.0]


def test_profiles_survive_a_trip_to_disk(measured, tmp_path):
    path = tmp_path / "profile.json"
    profiles.save_profile(measured, path)
    assert profiles.load_profile(path) == measured


def test_a_damaged_profile_is_an_error(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text('{"device": "cpu"}')
    with pytest.raises(CheckpointError, match="delete it"):
        profiles.load_profile(path)


def test_a_checkpoint_that_cannot_be_written_is_served_all_the_same(measured, tmp_path):
    assert not profiles.keep_profile(measured, tmp_path / "not there")
    assert profiles.keep_profile(measured, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [profiles.PROFILE]
    assert profiles.load_profile(tmp_path / profiles.PROFILE) == measured


def test_rests_are_measured_for_replay(tmp_path):
    made = models.programs(models.mlp(), (1,))
    made.warm_atomic()
    made.warm_merged(())
    measured = profiles.rested(made, profiles.measure(made, (), budget_s=0.01))
    assert measured.rest_ms == profiles.REST_MS and len(measured.rest_factors) == len(
        profiles.REST_MS
    )
    assert measured.rest_factors[0] == 1.0
    assert list(measured.rest_factors) == sorted(measured.rest_factors)
    profiles.save_profile(measured, tmp_path / "profile.json")
    assert profiles.load_profile(tmp_path / "profile.json") == measured
