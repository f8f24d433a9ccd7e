"""Every workload that is recorded: its checkpoint with ramps, how these are trained, its stream."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from _demo import ROOT
from _traces_streams import (
    CAMERA,
    DEMO,
    TRACES,
    MissingError,
    amazon,
    cifar,
    cifar_ramps,
    imdb,
    rotten,
    there,
)

from apparate_jax.checkpoint import is_checkpoint

CIFAR = ("resnet-18", "resnet-50", "vgg-11", "vgg-16")
CAMERAS = ("people", "cars")
BACKBONES = ("efficientnet-lite0", "resnet-18", "resnet-50", "vgg-16")
PICTURES = 8000
"""Training pictures that ramps see."""
CHANGES = 3
"""In how many other lights and framings ramps see a camera's frame."""
PUBLISHED_FRAMES = 2000
PUBLISHED_SIZE = 128
"""Pixels, height and width, of what the published network with its 1,000 classes sees."""

Base = Callable[[Path], object]
"""Makes the checkpoint that ramps are trained for, where it is told."""
Data = Callable[[], Path]


@dataclass(frozen=True, slots=True)
class Ramps:
    """How the ramps of a checkpoint are trained.

    Attributes:
        base: Makes the checkpoint without them, or with others.
        data: What they are trained on.
        options: Of ``apparate train-ramps``.
    """

    base: Base
    data: Data
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Traced:
    """A workload.

    Attributes:
        name: Of its recording.
        checkpoint: With ramps.
        stream: The file that is recorded.
        ramps: None where somebody else trains them.
        limit: Rows at most.
    """

    name: str
    checkpoint: Path
    stream: Data
    ramps: Ramps | None = None
    limit: int | None = None

    @property
    def trace(self) -> Path:
        """Its recording."""
        return TRACES / f"{self.name}.npz"


def run(*words: str | Path) -> None:
    """Run a program of this environment."""
    subprocess.run([*map(str, words)], check=True)


def apparate(*words: str | Path) -> None:
    """Run one command of the command line."""
    run(Path(sys.executable).parent / "apparate", *words)


def with_ramps(work: Traced) -> Path:
    """The checkpoint of a workload; its ramps are trained if it is not there yet.

    Raises:
        MissingError: What it is made of is not there.
    """
    if work.ramps is None or is_checkpoint(work.checkpoint):
        return there(work.checkpoint, "run `just demo`")
    data = work.ramps.data()
    part = work.checkpoint.with_name(f".{work.checkpoint.name}")
    shutil.rmtree(part, ignore_errors=True)
    work.ramps.base(part)
    apparate("train-ramps", part, "--data", data, *work.ramps.options)
    return part.rename(work.checkpoint)


def _copied(source: Path, remedy: str, path: Path) -> None:
    shutil.copytree(there(source, remedy), path)


def _widened(path: Path) -> None:
    source = there(DEMO / "checkpoint", "run `just demo`")
    run(sys.executable, ROOT / "examples" / "widen.py", source, "--out", path)


def _published(path: Path) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    import published

    try:
        weights = published.file_of(published.EFFICIENTNET, ".pth")
    except FileNotFoundError as error:
        raise MissingError(str(error)) from error
    size = str(PUBLISHED_SIZE)
    options = ("--architecture", "efficientnet-lite0", "--image-size", size)
    apparate("inject", weights, *options, "-o", path)


def _reviews() -> list[Traced]:
    def ramps() -> Path:
        return there(DEMO / "reviews-ramps.csv", "run `just demo`")

    demo = DEMO / "checkpoint"
    whole = ("--data-frac", "1")
    deebert = (*whole, "--kind", "first_token", "--style", "pooler")
    pooler = Ramps(partial(_copied, demo, "run `just demo`"), ramps, deebert)
    wide = Ramps(_widened, ramps, whole)
    return [
        Traced("imdb", demo, imdb),
        Traced("amazon", demo, amazon),
        Traced("rotten", demo, rotten),
        Traced("imdb-pooler", TRACES / "pooler-checkpoint", imdb, pooler),
        Traced("imdb-distilbert", TRACES / "imdb-distilbert-checkpoint", imdb, wide),
    ]


def _pictures(architecture: str) -> Traced:
    name = f"cifar-{architecture}"
    folder = ROOT / "runs" / ("cifar" if architecture == "resnet-18" else name)
    base = partial(_copied, folder / "checkpoint", "run examples/train_cifar.py")
    ramps = Ramps(base, cifar_ramps, ("--limit", str(PICTURES), "--data-frac", "1"))
    stream = partial(cifar, name, folder / "stream.parquet")
    return Traced(name, TRACES / f"{name}-checkpoint", stream, ramps)


def _video(name: str, clip: str, base: Base, limit: int | None = None) -> Traced:
    def made(path: Path) -> Data:
        return partial(there, path, "run examples/train_camera.py")

    varied = ("--data-frac", "1", "--vary", str(CHANGES))
    ramps = Ramps(base, made(CAMERA / f"{clip}-ramps.mp4"), varied)
    stream = made(CAMERA / f"{clip}.mp4")
    return Traced(name, TRACES / f"{name}-checkpoint", stream, ramps, limit)


def _camera(clip: str, backbone: str) -> Traced:
    name = f"{clip}-{backbone}"
    source = CAMERA / name / "checkpoint"
    return _video(name, clip, partial(_copied, source, "run examples/train_camera.py"))


def all_workloads() -> dict[str, Traced]:
    """Every workload by its name, in the order in which they are recorded."""
    listed = [
        *_reviews(),
        *(_pictures(architecture) for architecture in CIFAR),
        *(_camera(clip, backbone) for clip in CAMERAS for backbone in BACKBONES),
        _video("people-1000", "people", _published, PUBLISHED_FRAMES),
    ]
    return {work.name: work for work in listed}
