"""``apparate bench live``: both systems on real engines, in turn."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from apparate_cli import options
from apparate_cli.bench_report import arrival_times, draw, exits_table, latency_table
from apparate_cli.output import Output, Phases, check_place, phases
from apparate_cli.trained import trained
from apparate_jax.bench.baselines import SYSTEMS, Policy, criterion_of, policy_of, task_of
from apparate_jax.bench.comparison import Comparison, concatenate
from apparate_jax.bench.live import LiveConfig, run_live
from apparate_jax.bench.oracle import earliest_right, oracle_latency_ms
from apparate_jax.bench.recording import load
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.checkpoint import Checkpoint
from apparate_jax.data import load_data
from apparate_jax.data.dataset import Circle, Dataset
from apparate_jax.errors import ConfigError
from apparate_jax.graph import trace as trace_model
from apparate_jax.graph.names import without_line
from apparate_jax.serve import EngineConfig, Service, prepare
from apparate_jax.serve.profile import keep_profile
from apparate_jax.serve.service import ServiceConfig

LIVE = LiveConfig()
OURS = "apparate"
LIVE_SYSTEMS = tuple(name for name, one in SYSTEMS.items() if one.make and name != OURS)


# Long by its options: Typer reads them from the signature.
def live(
    checkpoint: options.CheckpointPath,
    data: options.Data,
    load_frac: Annotated[
        float, typer.Option(help="Arrival rate, as a share of the original's measured throughput.")
    ] = LIVE.load_frac,
    rate: options.Rate = None,
    arrivals: Annotated[
        str, typer.Option(help="poisson, fixed, or a CSV file of arrival times.")
    ] = LIVE.arrivals,
    rounds: Annotated[int, typer.Option(help="Turns of each system.")] = LIVE.rounds,
    round_seconds: Annotated[
        float, typer.Option(help="Length of a round of arrivals.")
    ] = LIVE.round_s,
    saturation_seconds: Annotated[
        float, typer.Option(help="Length of a measurement of throughput.")
    ] = LIVE.saturation_s,
    settle: Annotated[
        int, typer.Option(help="Answers before the rounds, so that thresholds are tuned.")
    ] = LIVE.settle,
    accuracy: options.Accuracy = options.CONTROL.accuracy,
    ramp_budget: options.RampBudget = options.PLACEMENT.ramp_budget,
    batch_sizes: options.BatchSizes = options.BATCH_SIZES,
    promise: options.Promise = options.CONTROL.promise,
    policy: options.Policy = options.CONTROL.policy,
    method: options.Method = options.CONTROL.method,
    batching: options.Batching = options.ENGINE.batching.policy,
    batch_timeout_ms: options.BatchTimeoutMs = options.ENGINE.batching.timeout_ms,
    queue_size: options.QueueSize = options.ENGINE.queue_size,
    defer: options.Defer = options.ENGINE.defer,
    system: Annotated[
        str,
        typer.Option(
            help="What is measured against the original: apparate, or another system (with "
            f"--trace): {', '.join(LIVE_SYSTEMS)}."
        ),
    ] = OURS,
    trace: Annotated[
        Path | None,
        typer.Option(help="Recording of this checkpoint (apparate bench record) to tune it on."),
    ] = None,
    noise_floor: Annotated[
        bool,
        typer.Option(
            "--noise-floor",
            help="Also run the original a second time in each round, and state how much equal "
            "systems differ here.",
        ),
    ] = LIVE.noise_floor,
    oracle: Annotated[
        bool, typer.Option(help="Also state what leaving at the earliest right site would save.")
    ] = True,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG).")] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals.")] = LIVE.seed,
    text_column: options.TextColumn = "text",
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    fps: options.Fps = None,
    limit: options.Limit = None,
    json: options.Json = None,
) -> None:
    """Serve the original model and early answers in turn, on the same arrivals, and compare.

    Example: apparate bench live runs/demo/checkpoint --data stream.csv --json report.json
    """
    output = Output(json)
    if plot is not None:
        check_place(plot)
    times = arrival_times(arrivals)
    config = LiveConfig(
        load_frac=load_frac,
        rate_rps=rate,
        arrivals=arrivals if times is None else LIVE.arrivals,
        rounds=rounds,
        round_s=round_seconds,
        saturation_s=saturation_seconds,
        settle=settle,
        seed=seed,
        noise_floor=noise_floor,
    )
    control = options.control_config(accuracy, promise, policy, method)
    engine = live_engine(batching, batch_timeout_ms, queue_size, defer)
    service_config = options.service_config(ramp_budget, batch_sizes, control, engine)
    loaded = trained(checkpoint)
    other = _other(system, trace, loaded, service_config)
    if other is not None:
        service_config = replace(service_config, criterion=criterion_of(system))
    examples = load_data(
        data,
        loaded.model,
        text_column=text_column,
        image_column=image_column,
        label_column=label_column,
        fps=fps,
        limit=limit,
    )
    with phases() as phase:
        service = prepare(loaded, service_config, phase)
        keep_profile(service.profile, checkpoint)
        result = run_live(
            service, examples, config, trace=times, policy=other, on_phase=_each_phase(phase)
        )
        oracle_ms = _oracle(loaded, service, result, examples, phase) if oracle else None
        service.programs.close()
    report = build_report(Subject.of(service, examples.name), result, config.stated_load, oracle_ms)
    report["system"] = system
    if plot is not None:
        draw(report, result, oracle_ms, plot)
    output.show(latency_table(report))
    output.show(exits_table(report))
    output.write(report)


def live_engine(
    batching: str, batch_timeout_ms: float, queue_size: int, defer: int
) -> EngineConfig:
    """The engine of a live benchmark, where every request has to be answered.

    Raises:
        ConfigError: A policy that refuses requests, or a value out of range.
    """
    if batching == "slo":
        raise ConfigError(
            "bench live compares answers to the same requests, but batching by 'slo' refuses some: "
            "take immediate or timeout, or apparate bench replay"
        )
    return options.engine_config(batching, batch_timeout_ms, None, queue_size, defer=defer)


def _other(
    system: str, trace: Path | None, loaded: Checkpoint, config: ServiceConfig
) -> Policy | None:
    """The policy of another system than ours, tuned on a recording of the same checkpoint.

    Raises:
        ConfigError: No such system, or no recording of this checkpoint to tune it on.
    """
    if system == OURS:
        return None
    if system not in LIVE_SYSTEMS:
        raise ConfigError(f"system is {system!r}, expected one of {[OURS, *LIVE_SYSTEMS]}")
    if trace is None:
        raise ConfigError(
            f"{system} is tuned on a recording: make one with apparate bench record, and give it "
            "with --trace"
        )
    recording = load(trace)
    sites = [without_line(site.name) for site in loaded.sites]
    if [without_line(name) for name in recording.site_names] != sites:
        raise ConfigError(f"{trace} was recorded of another model: record this checkpoint")
    return policy_of(system, task_of(recording, config.control, config.placement))


def _each_phase(phase: Phases) -> Any:
    steps: dict[str, Any] = {}

    def on_phase(what: str, done: int, total: int) -> None:
        steps.setdefault(what, phase(what))(done, total, what)

    return on_phase


def _oracle(
    loaded: Checkpoint, service: Service, result: Comparison, data: Dataset, phase: Phases
) -> np.ndarray[Any, np.dtype[np.float64]]:
    model = loaded.model
    program = trace_model(model.apply, model.params, *model.example_inputs(1))
    counts = [len(r.answers["vanilla"].latency_ms) for r in result.rounds]
    rows = np.concatenate(
        [r.first_input + np.arange(n) for r, n in zip(result.rounds, counts, strict=True)]
    )
    first = result.rounds[0].first_input
    seen = Circle(data, first, min(len(rows), len(data)))
    by_row = earliest_right(program, model, loaded.ramps, seen, phase("oracle"))
    earliest = by_row[(rows - first) % len(data)]
    answers = concatenate([r.answers["vanilla"] for r in result.rounds])
    return oracle_latency_ms(answers, earliest, service.profile)
