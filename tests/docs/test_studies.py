"""Every table of docs/studies.md is as results/studies.json has it."""

import re

import pytest

from tests.docs import studies

TEXT = studies.DOCUMENT.read_text(encoding="utf-8")
TABLES = [match[0] for match in studies.TABLE.finditer(TEXT)]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.splitlines()[0][13:-4])
def test_tables(table):
    assert table == studies.renewed(table), "run python -m tests.docs.renew"


def test_every_table_of_systems_names_its_study():
    heads = re.findall(r"^(?:\|.*\bsystem\b.*\|)$", TEXT, re.M)
    assert len(heads) == len(TABLES) > 10


@pytest.mark.parametrize("number", [r"\d+\.\d+ %", r"x \d+\.\d+", r"-?\d+\.\d+ %, \d+\.\d+ %"])
def test_another_figure_is_found_out(number):
    at = next(i for i, table in enumerate(TABLES) if re.search(number, table))
    wrong = re.sub(number, lambda m: re.sub(r"\d", "9", m[0]), TABLES[at], count=1)
    assert wrong != TABLES[at] == studies.renewed(wrong)


def test_a_row_that_nobody_measured_is_refused():
    with pytest.raises(ValueError, match="not enough values"):
        studies.renewed(TABLES[0].replace("| vanilla |", "| nobody |"))
