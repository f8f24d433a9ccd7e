"""``apparate serve``: serve a checkpoint over HTTP."""

import socket
from typing import Annotated

import typer

from apparate_cli import options
from apparate_cli.output import phases, stderr
from apparate_cli.trained import trained
from apparate_jax.serve import Service, prepare
from apparate_jax.serve.profile import keep_profile


def serve(
    checkpoint: options.CheckpointPath,
    http_port: Annotated[int, typer.Option(help="Port of the HTTP server.")] = 8000,
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
) -> None:
    """Serve early answers over the Open Inference Protocol (REST).

    Example: apparate serve runs/demo/checkpoint --http-port 8000
    """
    from apparate_jax.serve.http import open_socket

    config = options.service_config(
        ramp_budget, batch_sizes, options.control_config(accuracy, promise, policy, method)
    )
    loaded = trained(checkpoint)
    with open_socket(host, http_port) as sock:
        with phases() as phase:
            service = prepare(loaded, config, phase)
        keep_profile(service.profile, checkpoint)
        _serve(service, sock, model_name or loaded.model.name)


def _serve(service: Service, sock: socket.socket, name: str) -> None:
    from apparate_jax.serve.http import HttpServer, build_app

    engine, feedback = service.apparate()
    console = stderr()

    def on_ready(url: str) -> None:
        console.print(f"ready: {url}/v2/models/{name}", soft_wrap=True)

    with engine:
        feedback.attach(engine)
        HttpServer(build_app(engine, model_name=name), sock, on_ready=on_ready).run()
    feedback.close()
    service.programs.close()
    console.print("stopped; every accepted request was answered")
