"""The table of docs/performance.md that says on which machine, and when, each result was measured.

It follows a line ``<!-- machines -->``. Files of before days and revisions were kept have neither.
"""

import json
import re

from tests.docs.figures import RESULTS, ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
MARK = "<!-- machines -->"
TABLE = re.compile(rf"{MARK}\n(?:\|.*\n)+")
HEAD = "| machine | measured | results |\n|---|---|---|\n"


def _row(path):
    """A file's machine, when it was measured, and its name."""
    found = json.loads(path.read_text(encoding="utf-8"))
    device = found["machine"]["device"].replace("(R)", "").replace(" Processor", "")
    measured = found.get("measured", {})
    when = f"{measured['on']}, {measured['revision']}" if measured else "earlier"
    return f"{device}, jax {found['machine']['jax']}", when, path.stem


def table():
    """The line and the table."""
    groups = {}
    for path in sorted(RESULTS.glob("*.json")):
        machine, when, name = _row(path)
        groups.setdefault((machine, when), []).append(f"`{name}`")
    lines = (f"| {m} | {w} | {', '.join(names)} |\n" for (m, w), names in sorted(groups.items()))
    return f"{MARK}\n{HEAD}{''.join(lines)}"


def renewed(text):
    """The document with the table as the files have it."""
    return TABLE.sub(lambda _: table(), text)
