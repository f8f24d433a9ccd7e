"""What the scripts that train base models share: where data lies, and what they leave in runs/."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from apparate_jax.checkpoint import Checkpoint, save_checkpoint
from apparate_jax.core import Model
from apparate_jax.data.dataset import Dataset
from apparate_jax.graph import trace
from apparate_jax.serve.profile import device_name

DATA = "APPARATE_DATA"
"""Environment variable that names the folder with data sets."""

BATCH = 16


def data_file(parser: argparse.ArgumentParser, option: str, given: Path | None, name: str) -> Path:
    """A file that was given, or ``name`` in the folder of data sets; ends the program without."""
    folder = os.environ.get(DATA)
    if given is None and folder is None:
        parser.error(f"give {option}, or set {DATA} to the folder that holds {name}")
    path = given or Path(str(folder)) / name
    if not path.is_file():
        parser.error(f"no file at {path}")
    return path


def logits_of(
    model: Model, data: Dataset, what: str, rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Answers of a model to every row of a data set, or to some in order: f32[rows, classes]."""
    apply = jax.jit(model.apply)
    found = []
    chosen = np.arange(len(data)) if rows is None else rows
    with Progress() as progress:
        task = progress.add_task(what, total=len(chosen))
        for start in range(0, len(chosen), BATCH):
            some = chosen[start : start + BATCH]
            if some[-1] - some[0] == len(some) - 1:
                (images,) = data.rows(int(some[0]), int(some[-1]) + 1)
            else:
                images = np.concatenate([data.rows(int(i), int(i) + 1)[0] for i in some])
            # The last batch is filled up: another shape would be another compilation.
            filled = np.resize(images, (BATCH, *images.shape[1:]))
            found.append(np.asarray(apply(model.params, filled))[: len(images)])
            progress.update(task, advance=len(images))
    return np.concatenate(found)


def save(out: Path, model: Model, card: Mapping[str, Any]) -> None:
    """Write ``out/checkpoint`` and ``out/card.json``, with the machine beside the figures."""
    program = trace(model.apply, model.params, *model.example_inputs(BATCH))
    save_checkpoint(out / "checkpoint", Checkpoint(model, program.sites))
    machine = {"device": device_name(), "cores": os.cpu_count(), "jax": jax.__version__}
    (out / "card.json").write_text(json.dumps({**card, "machine": machine}, indent=2) + "\n")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Settings as JSON values; of files, the names."""
    return {k: v.name if isinstance(v, Path) else v for k, v in vars(args).items()}
