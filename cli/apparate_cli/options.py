"""Options that several commands share. Defaults come from the configurations of the library."""

from pathlib import Path
from typing import Annotated

import typer

from apparate_jax.control.config import POLICIES, PROMISES, ControlConfig
from apparate_jax.control.thresholds import METHODS
from apparate_jax.errors import ConfigError
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve.engine_config import BATCHING, BatchingConfig, EngineConfig
from apparate_jax.serve.service import ServiceConfig

CONTROL = ControlConfig()
PLACEMENT = PlacementConfig()
SERVICE = ServiceConfig()
ENGINE = SERVICE.engine
BATCH_SIZES = ",".join(map(str, SERVICE.batch_sizes))

Json = Annotated[
    str | None,
    typer.Option("--json", metavar="PATH", help="Write the result as JSON; - for standard output."),
]
CheckpointPath = Annotated[
    Path, typer.Argument(metavar="CKPT", help="Checkpoint directory, made by apparate inject.")
]
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Data: .csv, .jsonl or .parquet with a column of texts or pictures, a folder of "
        "pictures (one folder per class), a video, or .npz by input name.",
    ),
]
TextColumn = Annotated[str, typer.Option(help="Column of texts.")]
ImageColumn = Annotated[str, typer.Option(help="Column of pictures, or of their paths.")]
Fps = Annotated[
    float | None,
    typer.Option(help="Rows per second of video; each of its frames is one unless given."),
]
LabelColumn = Annotated[str, typer.Option(help="Column of labels, used if it is there.")]
Limit = Annotated[int | None, typer.Option(help="Use at most this many rows.")]
Accuracy = Annotated[
    float, typer.Option(help="Share of answers that must equal the original model's.")
]
Promise = Annotated[
    str,
    typer.Option(
        help=f"What is held of the accuracy: {', '.join(PROMISES)} (over the stream, or in nearly "
        "every window of 512 answers)."
    ),
]
Policy = Annotated[
    str, typer.Option("--policy", help=f"How active ramps change: {', '.join(POLICIES)}.")
]
Method = Annotated[str, typer.Option(help=f"Threshold search: {', '.join(METHODS)}.")]
RampBudget = Annotated[
    float,
    typer.Option(help="What ramps may add to the worst-case latency, as a share; measured."),
]
BatchSizes = Annotated[
    str, typer.Option(help="Batch shapes to compile and serve, comma-separated.")
]
Batching = Annotated[
    str,
    typer.Option(
        help=f"How batches are formed: {', '.join(BATCHING)} (as many as wait at once; when full "
        "or after a timeout; the largest that meets every deadline)."
    ),
]
BatchTimeoutMs = Annotated[
    float,
    typer.Option(help="With --batching timeout: longest wait of the oldest request for others."),
]
SloMs = Annotated[
    float | None,
    typer.Option(
        help="With --batching slo: when an answer is due after its request's arrival; what cannot "
        "be met is refused."
    ),
]
QueueSize = Annotated[int, typer.Option(help="Requests that may wait.")]
Rate = Annotated[
    float | None,
    typer.Option(help="Requests per second instead of a share of the load, as of a camera."),
]
Defer = Annotated[
    int,
    typer.Option(help="Batches that may go before the rest of one that is answered; 0: none."),
]

# Options of `serve`, which may be said in its configuration file as well: not given is None.
MaybeAccuracy = Annotated[
    float | None,
    typer.Option(
        help=f"Share of answers that must equal the original model's. [{CONTROL.accuracy}]"
    ),
]
MaybePromise = Annotated[
    str | None,
    typer.Option(help=f"What is held of it: {', '.join(PROMISES)}. [{CONTROL.promise}]"),
]
MaybePolicy = Annotated[
    str | None,
    typer.Option(help=f"How active ramps change: {', '.join(POLICIES)}. [{CONTROL.policy}]"),
]
MaybeMethod = Annotated[
    str | None, typer.Option(help=f"Threshold search: {', '.join(METHODS)}. [{CONTROL.method}]")
]
MaybeRampBudget = Annotated[
    float | None,
    typer.Option(
        help="What ramps may add to the worst-case latency, as a share; measured. "
        f"[{PLACEMENT.ramp_budget}]"
    ),
]
MaybeBatchSizes = Annotated[
    str | None,
    typer.Option(help=f"Batch shapes to compile and serve, comma-separated. [{BATCH_SIZES}]"),
]
MaybeBatching = Annotated[
    str | None,
    typer.Option(help=f"How batches are formed: {', '.join(BATCHING)}. [{ENGINE.batching.policy}]"),
]
MaybeBatchTimeoutMs = Annotated[
    float | None,
    typer.Option(
        help="With --batching timeout: longest wait of the oldest request for others. "
        f"[{ENGINE.batching.timeout_ms:g}]"
    ),
]
MaybeQueueSize = Annotated[
    int | None, typer.Option(help=f"Requests that may wait. [{ENGINE.queue_size}]")
]
MaybePriorityLevels = Annotated[
    int | None,
    typer.Option(
        help="Levels of priority; requests of level 1 go first. "
        f"[{ENGINE.batching.priority_levels}]"
    ),
]


def parse_sizes(text: str) -> tuple[int, ...]:
    """Batch shapes from ``1,2,4``.

    Raises:
        ConfigError: If they are no distinct positive numbers.
    """
    try:
        sizes = tuple(sorted(int(part) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"batch sizes are {text!r}, expected numbers like 1,2,4,8") from error
    if not sizes or sizes[0] < 1 or len(set(sizes)) != len(sizes):
        raise ConfigError(f"batch sizes are {text!r}, expected distinct numbers of at least 1")
    return sizes


def control_config(accuracy: float, promise: str, policy: str, method: str) -> ControlConfig:
    """The controller's configuration from what was typed.

    Raises:
        ConfigError: A value that does not exist.
    """
    return ControlConfig(
        accuracy=accuracy,
        promise=promise,  # type: ignore[arg-type]
        policy=policy,  # type: ignore[arg-type]
        method=method,  # type: ignore[arg-type]
    )


def engine_config(
    batching: str,
    batch_timeout_ms: float,
    slo_ms: float | None,
    queue_size: int,
    *,
    priority_levels: int = ENGINE.batching.priority_levels,
    max_in_flight: int = ENGINE.max_in_flight,
    defer: int = ENGINE.defer,
) -> EngineConfig:
    """The engine's limits and batching from what was typed.

    Raises:
        ConfigError: A policy that does not exist, or a value out of range.
    """
    formed = BatchingConfig(batching, batch_timeout_ms, slo_ms, priority_levels=priority_levels)
    return EngineConfig(max_in_flight, queue_size, formed, defer)


def service_config(
    ramp_budget: float,
    batch_sizes: str,
    control: ControlConfig,
    engine: EngineConfig = ENGINE,
) -> ServiceConfig:
    """The service's configuration from what was typed."""
    return ServiceConfig(
        batch_sizes=parse_sizes(batch_sizes),
        engine=engine,
        control=control,
        placement=PlacementConfig(ramp_budget=ramp_budget),
    )
