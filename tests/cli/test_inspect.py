"""``apparate inspect``: the sites of a model or a checkpoint, and its ramps."""

import pytest

from tests.cli import tiny
from tests.models import bert_directory


def test_a_model(apparate):
    done = apparate("inspect", tiny.REFERENCE, "--json", "-")
    assert (done.status, done.err) == (0, "")
    result = done.json
    assert result["inputs"] == [{"name": "x", "shape": [tiny.WIDTH], "dtype": "float32"}]
    assert result["labels"] == ["a", "b", "c"] and result["training"] is None
    assert [site["ramp"] for site in result["sites"]] == [None, None]
    assert all(site["source"].startswith("tiny.py:") for site in result["sites"])
    costs = [site["cost_frac"] for site in result["sites"]]
    assert sum(costs) == pytest.approx(result["sites"][-1]["depth"], abs=1e-4)


def test_a_checkpoint_before_training_says_the_same_as_the_model(apparate, injected):
    of_model = apparate("inspect", tiny.REFERENCE, "--json", "-").json
    assert apparate("inspect", injected, "--json", "-").json == of_model


def test_a_checkpoint_with_ramps(apparate, trained):
    result = apparate("inspect", trained, "--json", "-").json
    ramps = [site["ramp"] for site in result["sites"]]
    assert [ramp["kind"] for ramp in ramps] == ["identity", "identity"]
    assert [ramp["bytes"] for ramp in ramps] == [4 * tiny.CLASSES * (8 + 1)] * 2
    assert all(0 <= ramp["agreement"] <= 1 for ramp in ramps)
    assert any(ramp["active"] for ramp in ramps)
    assert result["training"]["data"] == "inputs.npz"


def test_for_people(apparate, trained, tmp_path):
    done = apparate("inspect", trained)
    assert "tiny: 2 sites" in done.out and "batchx8" in done.out and "active" in done.out
    assert "ramp" not in apparate("inspect", tiny.REFERENCE).out
    bert = bert_directory.write(tmp_path / "bert")
    even = apparate("inspect", bert, "--seq-len", 5).out
    assert "batchx5x8" in even and "note" not in even


def test_a_large_gap_between_sites_is_said_below_the_table(apparate):
    first, second = (
        site["name"] for site in apparate("inspect", tiny.REFERENCE, "--json", "-").json["sites"]
    )
    said = " ".join(apparate("inspect", tiny.REFERENCE).out.split())
    assert f"between {first} and {second}" in said
    assert said.index("batchx8") < said.index("no answer can leave there")


@pytest.mark.parametrize("name", ["nowhere", "nowhere/deep"])
def test_nothing_there(apparate, tmp_path, name):
    done = apparate("inspect", tmp_path / name)
    assert (done.status, done.out) == (1, "")
    assert f"no model directory at {tmp_path / name}" in done.error


def test_a_directory_of_something_else(apparate, tmp_path):
    (tmp_path / "holiday.jpg").write_text("")
    done = apparate("inspect", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert str(tmp_path) in done.error and "expected" in done.error
