"""What parts measure themselves: systems with their curves, and overheads."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.bench.paper import measure
from apparate_jax.bench.study import Inputs, StudyConfig
from apparate_jax.core import FINAL
from tests.bench import tiny

TINY = StudyConfig(requests=200, settle=50, saturated=60, seeds=2, accuracy=0.9, load_frac=0.2)


def test_systems_with_their_curves():
    told = []
    found = measure.systems(
        Inputs((tiny.recording(400),)),
        ("vanilla", "initial-only", "oracle"),
        TINY,
        lambda *step: told.append(step),
    )
    assert told[0] == (1, 6, "vanilla") and told[-1] == (6, 6, "oracle")
    assert [row["runs"] for row in found["rows"]] == [2, 2, 2] and len(found["by_seed"]) == 6
    vanilla, oracle = (np.asarray(found["curves"][name]) for name in ("vanilla", "oracle"))
    assert len(vanilla) == len(measure.SHARES) and (np.diff(vanilla) >= 0).all()
    assert (oracle <= vanilla).all() and set(found["curves"]) == {"vanilla", "oracle"}
    assert list(found["agreement"]) == ["initial-only"] and not found["heavy"]


def test_agreement_over_time():
    right = np.ones(100, np.bool_)
    right[:20] = False
    found = measure.agreement(right)
    assert found["window"] == 25 and found["answers"][0] == 25 and found["answers"][-1] == 100
    assert found["last"][0] == 0.2 and found["last"][-1] == 1.0 and found["so_far"][-1] == 0.8
    assert measure.agreement(np.ones(1, np.bool_))["so_far"] == [1.0]


def test_exit_rates_have_names_and_make_one():
    stream = tiny.recording(10)
    played = measure.Played(tiny.answers([1, 2, 3, 4], [0, 3, 3, 0]), 1.0, np.ones(4, np.bool_))
    assert measure.exit_rates(stream, played) == {"near": 0.5, FINAL: 0.5}


def test_overheads():
    made = tiny.recording(400, ramp_bytes=(10, 20, 30))
    found = measure.overheads(Inputs((made,)), 1000, replace(TINY, requests=60))
    assert [shape["added_frac"] for shape in found["shapes"]] == pytest.approx([0.1, 0.125, 0.2])
    assert found["active_bytes"] == 40 and found["active_ramps"] == ["near", "far"]
    control = found["control"]["apparate"]
    assert control["batches"] > 0 and control["mean_ms_per_batch"] > 0
