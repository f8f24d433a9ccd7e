"""``apparate train-ramps``: train a ramp at every site of a checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from apparate_cli import options
from apparate_cli.inject import TRACE_BATCH
from apparate_cli.memory import give_back, large_blocks_apart
from apparate_cli.output import Output, Step, phases
from apparate_cli.sites import sites_json, sites_table
from apparate_jax.checkpoint import load_checkpoint, save_ramps
from apparate_jax.control.initial import initial_sites
from apparate_jax.data import load_data
from apparate_jax.graph import trace
from apparate_jax.ramps import HEAD_STYLES, PlacementConfig, TrainConfig, train_ramps
from apparate_jax.ramps.placement import POLICIES

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
    with phases() as phase:
        with large_blocks_apart():
            loaded = load_checkpoint(checkpoint)
        give_back()
        model = loaded.model
        examples = load_data(
            data,
            model,
            text_column=text_column,
            image_column=image_column,
            label_column=label_column,
            fps=fps,
            limit=limit,
        )
        program = trace(model.apply, model.params, *model.example_inputs(TRACE_BATCH))
        steps: dict[str, Step] = {}

        def progress(done: int, total: int, what: str) -> None:
            steps.setdefault(what, phase(what))(done, total, what)
            if done == total:
                give_back()

        trained = train_ramps(program, model, examples, config, progress, phase.note)
    active = initial_sites(
        program.sites, trained.ramps, trained.validation, chosen, options.CONTROL
    )
    facts = {
        "data": examples.name,
        "examples": trained.samples,
        "validation_examples": len(trained.validation.labels),
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
    title = f"{model.name}: {len(trained.ramps)} ramps, trained on {trained.samples} examples"
    output.show(sites_table(title, program.sites, trained.ramps, active))
    output.show(
        f"next: apparate serve {checkpoint}, or apparate bench live {checkpoint} --data ..."
    )
    output.write(
        {
            "model": model.name,
            "checkpoint": str(checkpoint),
            "training": facts,
            "active": list(active),
            "sites": sites_json(program.sites, trained.ramps, active),
        }
    )
