"""``apparate inspect``: the sites of a model or checkpoint, and the ramps on them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from apparate_cli import options
from apparate_cli.inject import (
    TRACE_BATCH,
    Architecture,
    Base,
    Classes,
    ImageSize,
    OutputName,
    Precision,
    SeqLen,
    model_options,
)
from apparate_cli.output import Output
from apparate_cli.sites import gaps_hint, gaps_json, sites_json, sites_table
from apparate_jax.checkpoint import is_checkpoint, load_checkpoint
from apparate_jax.core import Profile
from apparate_jax.graph import trace
from apparate_jax.models import load_model
from apparate_jax.serve.profile import PROFILE, load_profile


def inspect(
    what: Annotated[str, typer.Argument(metavar="MODEL|CKPT", help="A model or a checkpoint.")],
    base: Base = None,
    seq_len: SeqLen = None,
    classes: Classes = None,
    dtype: Precision = None,
    output_name: OutputName = None,
    image_size: ImageSize = None,
    architecture: Architecture = None,
    json: options.Json = None,
) -> None:
    """Show where ramps can be: name, depth, shape, cost; for a checkpoint also its ramps.

    Example: apparate inspect runs/demo/checkpoint --json -
    """
    output = Output(json)
    if is_checkpoint(what):
        found = load_checkpoint(what)
        model, sites, ramps, active = found.model, found.sites, found.ramps, found.active
        training, profile = found.training, _measured(Path(what))
    else:
        given = model_options(
            seq_len=seq_len,
            classes=classes,
            dtype=dtype,
            output=output_name,
            image_size=image_size,
            architecture=architecture,
        )
        model = load_model(what, base=base, **given)
        program = trace(model.apply, model.params, *model.example_inputs(TRACE_BATCH))
        sites, ramps, active, training, profile = program.sites, (), (), None, None
    output.show(sites_table(f"{model.name}: {len(sites)} sites", sites, ramps, active))
    for line in [*gaps_hint(sites), *_in_words(profile)]:
        output.show(line)
    output.write(
        {
            "model": model.name,
            "inputs": [
                {"name": s.name, "shape": list(s.shape), "dtype": s.dtype} for s in model.inputs
            ],
            "labels": list(model.labels),
            "training": training,
            "profile": None if profile is None else asdict(profile),
            "sites": sites_json(sites, ramps, active),
            "large_gaps": gaps_json(sites),
        }
    )


def _measured(checkpoint: Path) -> Profile | None:
    """The profile that serving left in a checkpoint's directory, if any."""
    path = checkpoint / PROFILE
    return load_profile(path) if path.exists() else None


def _in_words(profile: Profile | None) -> list[str]:
    if profile is None:
        return []
    shapes = [
        f"  batch {s.batch}: {s.vanilla_ms:.2f} ms, with {len(profile.sites)} ramps "
        f"{s.total_ms:.2f} ms ({s.overhead_frac:+.1%})"
        for s in profile.shapes
    ]
    return [f"measured on {profile.device}, jax {profile.jax_version}:", *shapes]
