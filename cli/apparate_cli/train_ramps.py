"""``apparate train-ramps``: train a ramp at every site of a checkpoint."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from apparate_cli import options
from apparate_cli.inject import TRACE_BATCH
from apparate_cli.output import Output, Step, phases
from apparate_cli.sites import sites_json, sites_table
from apparate_jax.checkpoint import Checkpoint, check_sites, load_checkpoint, save_ramps
from apparate_jax.control.initial import initial_sites
from apparate_jax.core import Model, Site
from apparate_jax.data import load_data
from apparate_jax.data.dataset import Dataset
from apparate_jax.data.varied import Varied
from apparate_jax.graph import trace
from apparate_jax.memory import give_back, large_blocks_apart
from apparate_jax.ramps import HEAD_STYLES, PlacementConfig, TrainConfig
from apparate_jax.ramps.cache import Announce
from apparate_jax.ramps.features import Features
from apparate_jax.ramps.placement import POLICIES
from apparate_jax.ramps.train import fit_ramps, training_features

TRAIN = TrainConfig()


# Long by its options: Typer reads them from the signature.
def train(
    checkpoint: options.CheckpointPath,
    data: options.Data,
    data_frac: Annotated[
        float, typer.Option(help="Share of the data, from its start, to train ramps on.")
    ] = TRAIN.data_frac,
    max_ramps: Annotated[
        int, typer.Option(help="Ramps that are active at the start, at most.")
    ] = options.PLACEMENT.max_ramps,
    placement: Annotated[
        str, typer.Option(help=f"How they are chosen: {' or '.join(POLICIES)}.")
    ] = options.PLACEMENT.policy,
    kind: Annotated[
        str, typer.Option(help="Head kind of every ramp; auto follows the model's own pooling.")
    ] = TRAIN.kind,
    split: Annotated[
        str, typer.Option(help="Hold out samples at random, or the last ones (videos, streams).")
    ] = TRAIN.split,
    style: Annotated[
        str, typer.Option(help=f"Head style of every ramp: {', '.join(HEAD_STYLES)}.")
    ] = TRAIN.style,
    seed: Annotated[int, typer.Option(help="Of the split and the order.")] = TRAIN.seed,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Keep pooled features in a file below this directory, not in memory."),
    ] = None,
    text_column: options.TextColumn = "text",
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    fps: options.Fps = None,
    limit: options.Limit = None,
    vary: Annotated[
        int,
        typer.Option(help="Also show each picture so often in another light and framing."),
    ] = 0,
    json: options.Json = None,
) -> None:
    """Train ramps on the frozen model's own answers to your data; labels are not needed.

    Example: apparate train-ramps runs/demo/checkpoint --data reviews.csv --data-frac 1
    """
    output = Output(json)
    config = TrainConfig(
        data_frac=data_frac,
        kind=kind,
        style=style,
        split=split,  # type: ignore[arg-type]
        seed=seed,
        cache_dir=None if cache_dir is None else str(cache_dir),
    )
    chosen = PlacementConfig(max_ramps=max_ramps, policy=placement)

    def read(model: Model) -> Dataset:
        found = load_data(
            data,
            model,
            text_column=text_column,
            image_column=image_column,
            label_column=label_column,
            fps=fps,
            limit=limit,
        )
        return Varied(found, model, vary, seed) if vary else found

    with phases() as phase:
        steps: dict[str, Step] = {}

        def progress(done: int, total: int, what: str) -> None:
            steps.setdefault(what, phase(what))(done, total, what)
            if done == total:
                give_back()

        loaded, sites, name, run = _ready(checkpoint, read, config, progress, phase.note)
        with run as features:
            give_back()
            trained = fit_ramps(features, sites, config, progress)
    active = initial_sites(sites, trained.ramps, trained.validation, chosen, options.CONTROL)
    facts = {
        "data": name,
        "examples": trained.samples,
        "validation_examples": len(trained.validation.labels),
        "vary": vary,
    }
    done = replace(
        loaded,
        ramps=trained.ramps,
        active=active,
        training=facts,
        validation=trained.validation,
    )
    give_back()
    with large_blocks_apart():
        save_ramps(checkpoint, done)
    title = (
        f"{loaded.model.name}: {len(trained.ramps)} ramps, trained on {trained.samples} examples"
    )
    output.show(sites_table(title, sites, trained.ramps, active))
    output.show(
        f"next: apparate serve {checkpoint}, or apparate bench live {checkpoint} --data ..."
    )
    output.write(
        {
            "model": loaded.model.name,
            "checkpoint": str(checkpoint),
            "training": facts,
            "active": list(active),
            "sites": sites_json(sites, trained.ramps, active),
        }
    )


class _Ready(NamedTuple):
    """A checkpoint without its weights, the model's sites, the data's name, and the pass to run."""

    checkpoint: Checkpoint
    sites: tuple[Site, ...]
    data: str
    run: AbstractContextManager[Features]


def _ready(
    path: Path,
    read: Callable[[Model], Dataset],
    config: TrainConfig,
    progress: Step,
    announce: Announce,
) -> _Ready:
    """Load and trace. Only the pass holds weights and data: training needs neither."""
    with large_blocks_apart():
        loaded = load_checkpoint(path)
    give_back()
    model = loaded.model
    data = read(model)
    program = trace(model.apply, model.params, *model.example_inputs(TRACE_BATCH))
    check_sites(loaded, program.sites)
    run = training_features(program, model, data, config, progress, announce)
    bare = replace(loaded, model=replace(model, params=None))
    return _Ready(bare, program.sites, data.name, run)
