"""What a result file says of its own making, and when an earlier one counts."""

import json
import re
import sys

import pytest

from tests.docs.figures import ROOT


@pytest.fixture
def common(tmp_path):
    """The helpers, which scripts find as neighbours, with results in a folder of the test's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import _common

        patch.setattr(_common, "RESULTS", tmp_path / "benchmarks" / "results")
        (tmp_path / "benchmarks").mkdir()
        yield _common
    sys.modules.pop("_common", None)


def test_a_result_says_where_and_when(common):
    path = common.write_result("one", {"p50_ms": 1.5})
    found = json.loads(path.read_text())
    assert found["p50_ms"] == 1.5 and found["machine"]["cores"] >= 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["measured"]["on"])
    assert found["measured"]["revision"] is None  # no repository there


def test_what_was_measured_here_is_kept(common):
    assert common.earlier("one") == {}
    common.write_result("one", {"rows": [1]})
    assert common.earlier("one")["rows"] == [1]


@pytest.mark.parametrize("key", ["device", "jax"])
def test_what_another_machine_measured_is_not(common, capsys, key):
    path = common.write_result("one", {"rows": [1]})
    found = json.loads(path.read_text())
    found["machine"][key] = "another"
    path.write_text(json.dumps(found))
    assert common.earlier("one") == {}
    assert f"another {key} (another)" in capsys.readouterr().out
