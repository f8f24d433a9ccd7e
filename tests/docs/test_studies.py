"""Every row of the tables in docs/studies.md is a row of results/studies.json."""

import json
import re

import pytest

from tests.docs.figures import RESULTS, ROOT

TEXT = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
KEYS = {
    "p25 saved": "p25_saved_frac",
    "p50 saved": "p50_saved_frac",
    "p95 saved": "p95_saved_frac",
    "p99 saved": "p99_saved_frac",
    "throughput": "throughput_ratio",
    "disagreement": "disagreement",
    "worst run": "worst_disagreement",
    "windows below": "windows_below_constraint",
    "kept of hindsight": "kept_frac",
    "of exact": "of_exact_frac",
    "on the next window": "next_disagreement",
    "ms": "search_ms",
}
"""What the tables call the keys of a row."""
SETTINGS = {"load", "arrivals", "allowed", "budget", "SLO", "batches", "samples", "ramps"}
"""Columns that are the row's setting."""
MEASURED = [
    row
    for study in json.loads((RESULTS / "studies.json").read_text(encoding="utf-8"))[
        "studies"
    ].values()
    for row in study["rows"]
]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows(text):
    """Rows of every table that has a column of systems, as cells by column."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, _, *lines = table.splitlines()
        if "system" in cells(head):
            found += [dict(zip(cells(head), cells(line), strict=True)) for line in lines]
    return found


def says(cell, value):
    """Whether a cell is a value, at its own precision."""
    number = cell.removeprefix("x ").removesuffix(" %")
    scaled = value * 100 if cell.endswith("%") else value
    return f"{scaled:.{len(number.partition('.')[2])}f}" == number


def measured(row):
    """Whether one row of the file has the system, the setting and every figure of a table's row."""
    settings = {row[name] for name in SETTINGS & row.keys()}
    shown = {KEYS[name]: cell for name, cell in row.items() if name in KEYS and cell}
    return any(
        found["system"] == row["system"]
        and settings <= {found["setting"]}
        and all(key in found and says(cell, found[key]) for key, cell in shown.items())
        for found in MEASURED
    )


@pytest.mark.parametrize("row", rows(TEXT), ids=lambda row: " ".join([*row.values()][:3]))
def test_rows(row):
    assert measured(row), f"results/studies.json has no such row: {row}"


def test_there_are_rows():
    assert len(rows(TEXT)) > 100


def test_another_figure_is_found_out():
    row = rows(TEXT)[0]
    assert measured(row)
    assert not measured({**row, "disagreement": "0.31 %"})
    assert not measured({**row, "system": "nobody"})
