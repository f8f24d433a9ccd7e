"""``apparate bench replay``: both systems on a recorded stream, on a virtual clock."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from apparate_cli import options
from apparate_cli.bench_report import arrival_times, draw, exits_table, latency_table
from apparate_cli.output import Output, check_place
from apparate_jax.bench.recording import load
from apparate_jax.bench.replay import ReplayConfig
from apparate_jax.bench.replayed import (
    ReplayedConfig,
    oracle_of,
    plan_changes,
    policy,
    run_replayed,
    subject,
)
from apparate_jax.bench.report import build_report
from apparate_jax.ramps.placement import PlacementConfig

REPLAYED = ReplayedConfig()
SETTINGS = ReplayConfig()


# Long by its options: Typer reads them from the signature.
def replay(
    recording: Annotated[
        Path, typer.Argument(metavar="TRACE", help="Recording, made by apparate bench record.")
    ],
    load_frac: Annotated[
        float, typer.Option(help="Arrival rate, as a share of the original's throughput.")
    ] = REPLAYED.load_frac,
    rate: options.Rate = None,
    arrivals: Annotated[
        str, typer.Option(help="poisson, fixed, or a CSV file of arrival times.")
    ] = REPLAYED.arrivals,
    requests: Annotated[
        int, typer.Option(help="Requests; the recording's rows are used in a circle.")
    ] = REPLAYED.requests,
    settle: Annotated[
        int, typer.Option(help="Requests before them that count for agreement only.")
    ] = REPLAYED.settle,
    accuracy: options.Accuracy = options.CONTROL.accuracy,
    promise: options.Promise = options.CONTROL.promise,
    policy_name: options.Policy = options.CONTROL.policy,
    method: options.Method = options.CONTROL.method,
    ramp_budget: options.RampBudget = options.PLACEMENT.ramp_budget,
    max_in_flight: Annotated[
        int, typer.Option(help="Batches under way at a time.")
    ] = SETTINGS.engine.max_in_flight,
    defer: options.Defer = SETTINGS.engine.defer,
    batching: options.Batching = options.ENGINE.batching.policy,
    batch_timeout_ms: options.BatchTimeoutMs = options.ENGINE.batching.timeout_ms,
    slo_ms: options.SloMs = options.ENGINE.batching.slo_ms,
    queue_size: options.QueueSize = options.ENGINE.queue_size,
    control_delay_ms: Annotated[
        float, typer.Option(help="From a batch's end to what the controller made of it.")
    ] = SETTINGS.control_delay_ms,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG).")] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals.")] = REPLAYED.seed,
    json: options.Json = None,
) -> None:
    """Replay a recorded stream through the original model and early answers, and compare.

    Example: apparate bench replay stream.npz --load-frac 0.4 --json -
    """
    output = Output(json)
    if plot is not None:
        check_place(plot)
    times = arrival_times(arrivals)
    config = ReplayedConfig(
        load_frac=load_frac,
        rate_rps=rate,
        arrivals=arrivals if times is None else REPLAYED.arrivals,
        requests=requests,
        settle=settle,
        seed=seed,
    )
    engine = options.engine_config(
        batching,
        batch_timeout_ms,
        slo_ms,
        queue_size,
        max_in_flight=max_in_flight,
        defer=defer,
    )
    settings = ReplayConfig(engine, control_delay_ms=control_delay_ms, refuse=engine.batching.timed)
    control = options.control_config(accuracy, promise, policy_name, method)
    stream = load(recording)
    placement = PlacementConfig(ramp_budget=ramp_budget)
    controller = policy(stream, engine.suited(control), placement)
    start = time.perf_counter()
    result, replays = run_replayed(stream, controller, config, settings, trace=times)
    elapsed_s = time.perf_counter() - start
    refused = {name: made.refused.counts() for name, made in replays.items()}
    # The oracle answers what the original answered, request by request.
    oracle_ms = None if any(refused.values()) else oracle_of(stream, result)
    report = build_report(subject(stream, accuracy), result, config.stated_load, oracle_ms)
    report["replay"] = {
        "recording": str(recording),
        "recorded_on": {"device": stream.profile.device, "jax": stream.profile.jax_version},
        "simulated_s": round(float(replays["apparate"].released_s.max()), 3),
        "wall_s": round(elapsed_s, 3),
        "refused": refused,
        "set_changes": plan_changes(stream, replays["apparate"]),
        "events": [[round(at_s, 3), what] for at_s, what in replays["apparate"].events],
    }
    if plot is not None:
        draw(report, result, oracle_ms, plot)
    output.show(latency_table(report))
    output.show(exits_table(report))
    output.show(_note(report["replay"]))
    output.write(report)


def _note(facts: dict[str, Any]) -> str:
    device = facts["recorded_on"]["device"]
    refused = [
        f"{name} refused {sum(counts.values())} requests"
        for name, counts in facts["refused"].items()
        if counts
    ]
    return "; ".join(
        [
            f"{facts['simulated_s']:.0f} s of traffic replayed in {facts['wall_s']:.1f} s",
            *refused,
            f"latencies measured on {device}",
        ]
    )
