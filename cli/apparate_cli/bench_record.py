"""``apparate bench record``: record a stream, to replay it at any load and under any policy."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from apparate_cli import options
from apparate_cli.output import Output, check_place, new_file, phases
from apparate_cli.trained import trained
from apparate_jax.bench.record import record as record_stream
from apparate_jax.bench.recording import Recording
from apparate_jax.control.config import ControlConfig
from apparate_jax.data import load_data
from apparate_jax.graph import trace
from apparate_jax.serve import prepare
from apparate_jax.serve.profile import keep_profile, rested

OutputPath = Annotated[
    Path, typer.Option("--output", "-o", metavar="TRACE", help="Where to write it (.npz).")
]


# Long by its options: Typer reads them from the signature.
def record(
    checkpoint: options.CheckpointPath,
    data: options.Data,
    output_path: OutputPath,
    accuracy: options.Accuracy = options.CONTROL.accuracy,
    ramp_budget: options.RampBudget = options.PLACEMENT.ramp_budget,
    batch_sizes: options.BatchSizes = options.BATCH_SIZES,
    text_column: options.TextColumn = "text",
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    fps: options.Fps = None,
    limit: options.Limit = None,
    json: options.Json = None,
) -> None:
    """Record what every ramp and the original model answer, and what batches take on this device.

    Example: apparate bench record runs/demo/checkpoint --data stream.csv -o stream.npz
    """
    output = Output(json)
    check_place(output_path)
    config = options.service_config(ramp_budget, batch_sizes, ControlConfig(accuracy=accuracy))
    loaded = trained(checkpoint)
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
    with phases() as phase:
        service = prepare(loaded, config, phase)
        profile = rested(service.programs, service.profile)
        service.programs.close()
        keep_profile(profile, checkpoint)
        program = trace(model.apply, model.params, *model.example_inputs(1))
        recording = record_stream(
            program,
            model,
            loaded.ramps,
            examples,
            profile,
            phase("running all ramps"),
            loaded.validation,
        )
    with new_file(output_path) as file:
        recording.save(file)
    output.show(_table(recording))
    output.show(f"next: apparate bench replay {output_path} --load-frac 0.4")
    output.write(_json(recording, output_path))


def _json(recording: Recording, path: Path) -> dict[str, Any]:
    agreement = recording.agrees.mean(axis=0)
    right = _right(recording)
    return {
        "recording": str(path),
        "model": recording.model,
        "workload": recording.workload,
        "rows": len(recording),
        "parts": [part._asdict() for part in recording.parts],
        "device": recording.device,
        "jax": recording.jax_version,
        "active": list(recording.profile.sites),
        "original_right": right,
        "ramps": [
            {
                "site": recording.site_names[site],
                "depth": round(recording.depths[site], 4),
                "agreement": round(float(share), 5),
            }
            for site, share in zip(recording.ramps, agreement, strict=True)
        ],
    }


def _right(recording: Recording) -> float | None:
    """Share of the original's answers that are the label; None without labels."""
    if recording.labels is None:
        return None
    return round(float(np.mean(recording.final_predictions == recording.labels)), 5)


def _table(recording: Recording) -> Table:
    title = f"{recording.model} on {recording.workload}: {len(recording)} rows"
    right = _right(recording)
    if right is not None:
        title += f", the original is right on {right:.1%}"
    table = Table(title=title, title_justify="left")
    table.add_column("ramp")
    for name in ("depth", "agreement", "active"):
        table.add_column(name, justify="right")
    for site, share in zip(recording.ramps, recording.agrees.mean(axis=0), strict=True):
        active = "yes" if site in recording.profile.sites else ""
        name, depth = recording.site_names[site], recording.depths[site]
        table.add_row(name, f"{depth:.2f}", f"{share:.1%}", active)
    return table
