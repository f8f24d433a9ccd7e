"""Tables of docs/studies.md, whose rows come from results/studies.json.

A comment before each table names the study, or one for each value of its column ``stream``:
``<!-- studies: load -->``, ``<!-- studies: IMDB, independent = seeds; at once = seeds-shift -->``.
Which rows and columns it has, and how precise they are, is the table's own.
"""

import json
import re
from functools import cache

from tests.docs.figures import RESULTS, ROOT

DOCUMENT = ROOT / "docs" / "studies.md"
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
SETTINGS = ("load", "arrivals", "allowed", "budget", "SLO", "batches", "samples", "ramps")
"""Columns that are the row's setting."""
RANGE = "least, most"
"""A column with the range, over the runs, of the last figure to the left of it."""
TABLE = re.compile(r"^<!-- studies: (?P<studies>[^>]+) -->\n(?P<rows>(?:\|.*\n)+)", re.M)


@cache
def measured():
    return json.loads((RESULTS / "studies.json").read_text(encoding="utf-8"))["studies"]


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def written(cell, value):
    """A value in the form, and at the precision, that a cell has."""
    number = cell.removeprefix("x ").removesuffix(" %")
    scaled = value * 100 if cell.endswith("%") else value
    return cell.replace(number, f"{scaled:.{len(number.partition('.')[2])}f}")


def _study(named, row):
    if "=" not in named:
        return measured()[named.strip()]
    by_stream = dict(part.split("=") for part in named.split(";"))
    (name,) = (v for k, v in by_stream.items() if k.strip() == row["stream"])
    return measured()[name.strip()]


def _found(study, row):
    setting = [row[name] for name in SETTINGS if name in row]
    (found,) = (
        one
        for one in study["rows"]
        if one["system"] == row["system"] and setting in ([], [one["setting"]])
    )
    return found


def _range(study, key, system, cell):
    (runs,) = (one[system] for one in study["head_to_head"] if one["key"] == key)
    parts = cell.split(", ")
    return ", ".join(written(p, v) for p, v in zip(parts, (min(runs), max(runs)), strict=True))


def _row(named, head, line):
    shown = cells(line)
    row = dict(zip(head, shown, strict=True))
    study = _study(named, row)
    found, key, new = _found(study, row), "", []
    for name, cell in zip(head, shown, strict=True):
        key = KEYS.get(name, key)
        if name == RANGE and cell:
            cell = _range(study, key, row["system"], cell)
        elif name in KEYS and cell:
            cell = written(cell, found[key])
        new.append(cell)
    return f"| {' | '.join(new)} |\n".replace("|  |", "| |")


def _table(match):
    top, rule, *lines = match["rows"].splitlines(keepends=True)
    rows = [_row(match["studies"], cells(top), line) for line in lines]
    return f"<!-- studies: {match['studies']} -->\n{top}{rule}{''.join(rows)}"


def renewed(text):
    """The document with every table as its study is now."""
    return TABLE.sub(_table, text)
