"""The table of machines is as the result files have it."""

from tests.docs import machines
from tests.docs.figures import RESULTS

TEXT = machines.DOCUMENT.read_text(encoding="utf-8")


def test_table():
    assert machines.renewed(TEXT) == TEXT, "run python -m tests.docs.renew"


def test_every_result_is_in_it_once():
    (table,) = machines.TABLE.findall(TEXT)
    for path in RESULTS.glob("*.json"):
        assert table.count(f"`{path.stem}`") == 1, path.name
