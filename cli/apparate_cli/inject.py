"""``apparate inject``: find the places for ramps in a model and start a checkpoint."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from apparate_cli import options
from apparate_cli.output import Output, phases, stderr
from apparate_cli.sites import gaps_hint, gaps_json, sites_json, sites_table
from apparate_cli.trained import keep_trained
from apparate_jax.checkpoint import Checkpoint, is_checkpoint, save_checkpoint
from apparate_jax.errors import ModelError
from apparate_jax.graph import trace
from apparate_jax.memory import give_back, large_blocks_apart
from apparate_jax.models import load_model

TRACE_BATCH = 2

Reference = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=".onnx file, state dict (.pth, .pt, .bin, .safetensors), directory with config.json "
        "and safetensors (or a LoRA adapter), package.module:factory, or a name of the zoo.",
    ),
]
Base = Annotated[
    str | None, typer.Option(help="Directory of an adapter's base model, if it is not installed.")
]
SeqLen = Annotated[int | None, typer.Option(help="Length that token inputs are padded or cut to.")]
Classes = Annotated[
    int | None,
    typer.Option(help="Classes of a zoo model; for weights, how many they must have."),
]
Precision = Annotated[
    Literal["float32", "bfloat16"] | None,
    typer.Option("--dtype", help="Of parameters and computation; float32 unless given."),
]
OutputName = Annotated[
    str | None,
    typer.Option(
        "--output", help="Output of an .onnx graph with the logits, its first if not given."
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        help="Height and width of images: of a zoo model or state dict (224), or of an .onnx graph "
        "that leaves them open (224 or 48x192)."
    ),
]
Architecture = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of the zoo that a state dict is for; found by its tensors if not given.",
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Also where the checkpoint there has trained ramps.")
]


def model_options(**options: Any) -> dict[str, Any]:
    """Settings of the model that were given."""
    return {name: value for name, value in options.items() if value is not None}


def inject(
    model: Reference,
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint directory to make.")],
    base: Base = None,
    seq_len: SeqLen = None,
    classes: Classes = None,
    dtype: Precision = None,
    output_name: OutputName = None,
    image_size: ImageSize = None,
    architecture: Architecture = None,
    replace: Replace = False,
    json: options.Json = None,
) -> None:
    """Find the cut vertices of a model, unmodified, and write a checkpoint with its sites.

    Example: apparate inject checkpoints/minilm-l6-imdb -o runs/demo/checkpoint
    """
    output = Output(json)
    if is_checkpoint(model):
        raise ModelError(
            f"{model} is a checkpoint already, expected a model: train its ramps, apparate "
            f"train-ramps {model} --data ..., or inject what it was made of"
        )
    keep_trained(out, replace)
    with phases() as phase:
        step = phase("loading, tracing and saving the model")
        given = model_options(
            seq_len=seq_len,
            classes=classes,
            dtype=dtype,
            output=output_name,
            image_size=image_size,
            architecture=architecture,
        )
        with large_blocks_apart():
            loaded = load_model(model, base=base, **given)
        give_back()
        step(1, 3, "loaded")
        program = trace(loaded.apply, loaded.params, *loaded.example_inputs(TRACE_BATCH))
        step(2, 3, "traced")
        give_back()
        with large_blocks_apart():
            save_checkpoint(out, Checkpoint(loaded, program.sites))
        step(3, 3, "saved")
    if loaded.source.get("random_weights"):
        stderr().print(
            f"WARNING: {loaded.name} has random weights: its answers mean nothing", style="bold red"
        )
    if "note" in loaded.source:
        stderr().print(f"note: {loaded.source['note']}")
    output.show(sites_table(f"{loaded.name}: {len(program.sites)} sites", program.sites))
    for line in gaps_hint(program.sites):
        output.show(line)
    output.show(f"checkpoint in {out}; next: apparate train-ramps {out} --data ...")
    output.write(
        {
            "model": loaded.name,
            "checkpoint": str(out),
            "cut_vertices": program.num_cut_vertices,
            "sites": sites_json(program.sites),
            "large_gaps": gaps_json(program.sites),
        }
    )
