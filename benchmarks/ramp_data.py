"""What ramps should be trained on: how much data, and which, by what they save on a stream.

    python benchmarks/ramp_data.py [imdb] [cifar] [camera]

Ramps are trained on each choice of data, a fifth of it held out; the best set of at most three is
chosen with its thresholds on what was held out, and tried on the stream. ``saved`` is with
thresholds that spend exactly 1 % on the stream, so that choices are compared at one disagreement;
``fresh disagreement`` is what the thresholds of the held-out part do there. A site's time is its
share of the model's floating-point operations; heads cost the same whatever they were trained on,
and are left out.

``imdb`` needs the demo's packages; ``cifar`` and ``camera`` what examples/train_cifar.py and
examples/train_camera.py leave in runs/ (the VGG-16s), and are skipped without. Writes
results/ramp_data.json, where workloads that were not asked for stay as they are.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, asked, machine, write_result
from _demo import ROOT, RUN
from _traces_streams import CAMERA, MissingError, given, there
from _traces_workloads import CHANGES
from ramp_styles import LIMIT, MAX_RAMPS, answers_of, collected, kept_and_saved, traced

from apparate_jax.checkpoint import load_checkpoint
from apparate_jax.control import tune_thresholds
from apparate_jax.core import Model
from apparate_jax.data import load_data
from apparate_jax.data.dataset import Dataset
from apparate_jax.data.varied import Varied
from apparate_jax.graph import Program
from apparate_jax.models import from_hf
from apparate_jax.ramps import TrainConfig
from apparate_jax.ramps.features import Features
from apparate_jax.ramps.placement import place_by_validation
from apparate_jax.ramps.train import fit_ramps

HELD_OUT = 0.2
USEFUL = 0.97
"""Ramps that are deeper save nothing."""


@dataclass(frozen=True)
class Choices:
    """What the ramps of one model may be trained on, and the stream that they are tried on.

    Attributes:
        name: Of the workload.
        model: The frozen model.
        sources: Files by name.
        choices: For each choice, a source and which of its rows.
        stream: A source, and which of its rows.
        vary: How often pictures of a source are also shown in another light and framing.
    """

    name: str
    model: Model
    sources: Mapping[str, Path]
    choices: Mapping[str, tuple[str, slice]]
    stream: tuple[str, slice]
    vary: Mapping[str, int] = field(default_factory=dict)

    def data(self, source: str) -> Dataset:
        """The rows of a source that are wanted."""
        data = load_data(self.sources[source], self.model, limit=self.limit(source))
        times = self.vary.get(source, 0)
        return Varied(data, self.model, times) if times else data

    def limit(self, source: str) -> int | None:
        """How many rows of a source are wanted; None for all."""
        parts = (*self.choices.values(), self.stream)
        stops = [rows.stop for name, rows in parts if name == source]
        return None if None in stops else max(stops)


def imdb() -> Choices:
    """MiniLM-L6 on IMDB: more and more reviews."""
    sys.path.insert(0, str(ROOT / "examples"))
    import imdb as reviews

    more, stream = RUN / "ramp-data.csv", RUN / "ramp-data-stream.csv"
    texts = [reviews.read(part) for part in ("ramps", "stream")]
    rows = [row for text, label in texts for row in zip(text, label, strict=True)]
    reviews.write_rows(rows[:9000], more)
    reviews.write_rows(rows[9000:13000], stream)
    choices = {f"{n:,} reviews": ("more", slice(n)) for n in (300, 1000, 3000, 9000)}
    model = from_hf(ROOT / "checkpoints" / "minilm-l6-imdb")
    sources = {"more": more, "stream": stream}
    return Choices("imdb", model, sources, choices, ("stream", slice(None)))


def cifar() -> Choices:
    """A VGG-16 on CIFAR-10: few test pictures, or pictures that the network learnt from."""
    folder = ROOT / "runs" / "cifar-vgg-16"
    remedy = "run examples/train_cifar.py --architecture vgg-16 --out runs/cifar-vgg-16"
    sources = {
        "train": given("images/cifar10-train.parquet"),
        "test": there(folder / "stream.parquet", remedy),
    }
    choices = {
        "1,500 test pictures": ("test", slice(1500)),
        **{f"{n:,} training pictures": ("train", slice(n)) for n in (1500, 4000, 8000)},
    }
    model = load_checkpoint(there(folder / "checkpoint", remedy)).model
    return Choices("cifar", model, sources, choices, ("test", slice(1500, None)))


def camera() -> Choices:
    """A VGG-16 behind a fixed camera whose light changes: one light or many."""
    remedy = (
        "run examples/train_camera.py CLIP.mp4 --architecture vgg-16 --image-size 64 "
        "--out runs/camera/people-vgg-16 --stream runs/camera/people.mp4 --stream-minutes 10"
    )
    learnt = there(CAMERA / "people-ramps.mp4", remedy)
    sources = {
        "stream": there(CAMERA / "people.mp4", remedy),
        "learnt": learnt,
        "varied": learnt,
    }
    model = load_checkpoint(there(CAMERA / "people-vgg-16" / "checkpoint", remedy)).model
    choices = {
        "the stream's first 600 frames, one light": ("stream", slice(600)),
        "the frames that it learnt from, one light": ("learnt", slice(None)),
        f"the same with --vary {CHANGES}": ("varied", slice(None)),
    }
    stream = ("stream", slice(600, None))
    return Choices("camera", model, sources, choices, stream, {"varied": CHANGES})


WORKLOADS: dict[str, Callable[[], Choices]] = {"imdb": imdb, "cifar": cifar, "camera": camera}


def part(features: Features, rows: slice) -> Features:
    """Some samples."""
    return Features(features.layout, features.table[rows])


def tried(program: Program, data: Features, stream: Features) -> dict[str, Any]:
    """Train ramps on some data, choose from them, and try these on the stream."""
    count = round(len(data.table) * (1 - HELD_OUT))
    order = np.random.default_rng(0).permutation(len(data.table))
    learnt, held_out = (Features(data.layout, data.table[i]) for i in np.split(order, [count]))
    ramps = fit_ramps(learnt, program.sites, TrainConfig(data_frac=1.0)).ramps
    depths = np.asarray([program.sites[ramp.site].depth for ramp in ramps])
    useful = np.flatnonzero(depths <= USEFUL).tolist()
    before, here = answers_of(ramps, held_out), answers_of(ramps, stream)
    every = slice(None)
    offered = before.of(every, useful)
    placed = place_by_validation(
        offered.errors,
        offered.agrees,
        1.0 - depths[useful],
        tune_thresholds,
        max_ramps=MAX_RAMPS,
        max_disagreement=LIMIT,
    )
    chosen = [useful[i] for i in placed.ramps]
    found = kept_and_saved(
        before.of(every, chosen),
        here.of(every, chosen),
        1.0 - depths[chosen],
        np.zeros(len(chosen)),
    )
    return {
        "samples": len(data.table),
        **{key: round(value, 4) for key, value in found.items()},
        "agreement_mean": round(float(here.agrees.mean()), 4),
        "sites": [program.sites[ramps[i].site].name for i in chosen],
    }


def study(work: Choices) -> dict[str, Any]:
    """Every choice of a workload."""
    program = traced(work.model)
    features = {
        name: collected(f"{work.name}, {name}", program, work.model, work.data(name))
        for name in work.sources
    }
    source, rows = work.stream
    stream = part(features[source], rows)
    found = []
    for name, (source, rows) in work.choices.items():
        row = {"choice": name, **tried(program, part(features[source], rows), stream)}
        print(
            f"{work.name:7} {name:46} agreement {row['agreement_mean']:.1%}  "
            f"saved {row['mean_saved_frac']:.1%} (median {row['median_saved_frac']:.1%})",
            flush=True,
        )
        found.append(row)
    return {"model": work.model.name, "streamed": len(stream.table), "choices": found}


def main() -> None:
    """Study the workloads that were asked for, or all."""
    RUN.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "ramp_data.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["workloads"] if path.is_file() else {}
    for name in asked(WORKLOADS, "workloads"):
        try:
            work = WORKLOADS[name]()
        except MissingError as missing:
            print(f"{name}: skipped, {missing}")
            continue
        kept[name] = {"machine": machine(), **study(work)}
        settings = {"limit": LIMIT, "max_ramps": MAX_RAMPS, "held_out": HELD_OUT}
        write_result("ramp_data", {**settings, "workloads": kept})


if __name__ == "__main__":
    main()
