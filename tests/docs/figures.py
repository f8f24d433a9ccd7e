"""Figures in the documents that come from a result file, and know from which place in it.

A figure is a link to its file whose title is the path of the value, its keys joined by " / ":
``[x 0.65](../benchmarks/results/load_live.json "loads / load_frac=0.2 / p50 / median")``. In a list
a key is an index, or says what an entry has (``setting=40% & system=paper``). Text before and after
the number is kept; " %" after it stands for a share, so the value is times 100.

``python -m tests.docs.renew`` writes what the files say now into the documents.
"""

import json
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
RESULTS = ROOT / "benchmarks" / "results"
SEPARATOR = " / "
FIGURE = re.compile(
    r"\[(?P<before>[^\]\[\d]*?)(?P<number>-?\d[\d,]*(?:\.\d+)?)(?P<after>[^\]\[]*)\]"
    r'\((?P<link>[^)\s]*benchmarks/results/(?P<file>[\w-]+\.json)) "(?P<path>[^"]+)"\)'
)
TITLED = re.compile(r'\[[^\]\[]*\]\([^)\s]*benchmarks/results/[^)\s]+ "')
"""What looks like a figure; each must be one."""


@cache
def _results(file):
    return json.loads((RESULTS / file).read_text(encoding="utf-8"))


def _entry(entries, key):
    """Of a list: by index, or the one entry that has what the key says."""
    if "=" not in key:
        return entries[int(key)]
    wanted = dict(part.split("=", 1) for part in key.split(" & "))
    (found,) = (e for e in entries if all(str(e.get(k)) == v for k, v in wanted.items()))
    return found


def value_at(file, path):
    """The number at a path of a result file."""
    found = _results(file)
    for key in path.split(SEPARATOR):
        found = _entry(found, key) if isinstance(found, list) else found[key]
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise TypeError(f"{file}: {path} is {found!r}, expected a number")
    return found


def scaled(match):
    """The value of a figure in the unit of its text."""
    value = value_at(match["file"], match["path"])
    return value * 100 if match["after"].startswith(" %") else value


def _renewed(match):
    """The same link with the number that its file has, at the precision of the text."""
    decimals = len(match["number"].partition(".")[2])
    shown = f"{match['before']}{scaled(match):,.{decimals}f}{match['after']}"
    return f'[{shown}]({match["link"]} "{match["path"]}")'


def renewed(text):
    """A document with every figure as its file has it."""
    return FIGURE.sub(_renewed, text)
