"""Arrivals of the evaluation that are made of Azure's traces."""

import sys
from pathlib import Path

import numpy as np
import pytest

from apparate_jax.bench.workload import read_trace

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COUNTS = """HashOwner,HashApp,HashFunction,Trigger,480,481,482,483
a,a,steady,http,30,30,30,30
a,a,bursty,timer,0,110,0,0
a,a,busiest,queue,500,400,600,500
a,a,rare,timer,1,0,0,1
"""


@pytest.fixture(scope="module")
def azure():
    """The module, which finds its neighbours as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import _azure

        yield _azure
    for name in ("_azure", "_demo"):
        sys.modules.pop(name, None)


@pytest.fixture
def counts(tmp_path):
    path = tmp_path / "traces" / "azure_functions_500.csv"
    path.parent.mkdir()
    path.write_text(COUNTS)
    return path


def per_minute(times, minutes):
    return np.histogram(times, minutes, (0, 60 * minutes))[0].tolist()


def test_the_burstiest_function_of_those_that_are_long_enough(azure, counts):
    times = azure.burstiest(counts, 100)
    assert len(times) == 110 and times[-1] < 60
    assert (np.diff(times) >= 0).all()


def test_the_busiest_function_for_as_many_minutes_as_are_wanted(azure, counts):
    times = azure.busiest(counts, 901)
    assert len(times) == 1500
    assert per_minute(times, 3) == pytest.approx([500, 400, 600], abs=10)  # the first is at 0
    assert len(azure.busiest(counts, 900)) == 900


def test_what_is_written_is_read_back_and_kept(azure, counts, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("APPARATE_DATA", str(tmp_path))
    monkeypatch.setattr(azure, "ARRIVALS", 1000)
    azure.write_arrivals(tmp_path)
    assert "azure_llm_conv: skipped, there is no azure_llm_conv.csv" in capsys.readouterr().out
    path = tmp_path / "azure_function.csv"
    np.testing.assert_allclose(read_trace(path), azure.busiest(counts, 1000), atol=1e-5)
    before = path.read_bytes()
    counts.unlink()
    azure.write_arrivals(tmp_path)
    assert path.read_bytes() == before


def test_patterns_that_are_there(azure, counts, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("APPARATE_DATA", str(tmp_path))
    (found,) = azure.patterns(100)
    assert found.name == "azure_function" and len(found.times) == 110
    assert "without azure_llm_code" in capsys.readouterr().out
