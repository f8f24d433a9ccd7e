"""``apparate serve``: serve a checkpoint over HTTP and gRPC."""

import socket
from contextlib import ExitStack
from typing import Annotated

import typer

from apparate_cli import options
from apparate_cli.output import phases, stderr
from apparate_cli.trained import trained
from apparate_jax.errors import ConfigError
from apparate_jax.serve import Service, prepare
from apparate_jax.serve.profile import keep_profile


def serve(
    checkpoint: options.CheckpointPath,
    http_port: Annotated[
        int, typer.Option(help="Port of the HTTP server; 0 takes a free one.")
    ] = 8000,
    grpc_port: Annotated[
        int, typer.Option(help="Port of the gRPC server; 0 takes a free one.")
    ] = 8001,
    http: Annotated[bool, typer.Option("--http/--no-http", help="Serve over HTTP.")] = True,
    grpc: Annotated[bool, typer.Option("--grpc/--no-grpc", help="Serve over gRPC.")] = True,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    model_name: Annotated[
        str | None, typer.Option(help="Name under which clients ask for the model.")
    ] = None,
    accuracy: options.Accuracy = options.CONTROL.accuracy,
    ramp_budget: options.RampBudget = options.PLACEMENT.ramp_budget,
    batch_sizes: options.BatchSizes = options.BATCH_SIZES,
    promise: options.Promise = options.CONTROL.promise,
    policy: options.Policy = options.CONTROL.policy,
    method: options.Method = options.CONTROL.method,
    batching: options.Batching = options.ENGINE.batching.policy,
    batch_timeout_ms: options.BatchTimeoutMs = options.ENGINE.batching.timeout_ms,
    slo_ms: options.SloMs = options.ENGINE.batching.slo_ms,
    queue_size: options.QueueSize = options.ENGINE.queue_size,
    priority_levels: options.PriorityLevels = options.ENGINE.batching.priority_levels,
) -> None:
    """Serve early answers over the Open Inference Protocol (HTTP and gRPC).

    Example: apparate serve runs/demo/checkpoint --http-port 8000 --grpc-port 8001
    """
    from apparate_jax.serve.listen import open_socket

    if not http and not grpc:
        raise ConfigError("--no-http and --no-grpc leave nothing to serve: keep one of them")
    config = options.service_config(
        ramp_budget,
        batch_sizes,
        options.control_config(accuracy, promise, policy, method),
        options.engine_config(
            batching, batch_timeout_ms, slo_ms, queue_size, priority_levels=priority_levels
        ),
    )
    loaded = trained(checkpoint)
    with ExitStack() as open_ports:
        sockets = [
            open_ports.enter_context(open_socket(host, port)) if wanted else None
            for wanted, port in ((http, http_port), (grpc, grpc_port))
        ]
        with phases() as phase:
            service = prepare(loaded, config, phase)
        keep_profile(service.profile, checkpoint)
        _serve(service, model_name or loaded.model.name, *sockets)


def _serve(
    service: Service, name: str, http: socket.socket | None, grpc: socket.socket | None
) -> None:
    """Serve on the ports that are wanted, until a signal."""
    from apparate_jax.serve.running import Frontend, run_frontends

    engine, feedback = service.apparate()
    console = stderr()
    frontends: list[Frontend] = []
    lines: list[str] = []
    if http is not None:
        from apparate_jax.serve.http import HttpServer, build_app

        frontends.append(HttpServer(build_app(engine, model_name=name), http))
        lines.append(f"ready: {frontends[-1].url}/v2/models/{name}")
    if grpc is not None:
        from apparate_jax.serve.grpc import GrpcServer

        frontends.append(GrpcServer(engine, grpc, model_name=name))
        lines.append(f"ready: {frontends[-1].url} model {name}")

    with engine:
        feedback.attach(engine)
        run_frontends(frontends, lambda: console.print(*lines, sep="\n", soft_wrap=True))
    feedback.close()
    service.programs.close()
    console.print("stopped; every accepted request was answered")
