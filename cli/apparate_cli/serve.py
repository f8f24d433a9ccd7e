"""``apparate serve``: serve a checkpoint over HTTP."""

from typing import Annotated

import typer

from apparate_cli import options
from apparate_cli.bench import trained
from apparate_cli.output import phases, stderr
from apparate_jax.control.thresholds import METHODS
from apparate_jax.serve import prepare


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
    method: Annotated[
        str, typer.Option(help=f"Threshold search: {' or '.join(METHODS)}.")
    ] = options.CONTROL.method,
) -> None:
    """Serve early answers over the Open Inference Protocol (REST).

    Example: apparate serve runs/demo/checkpoint --http-port 8000
    """
    from apparate_jax.serve.http import HttpServer, build_app, open_socket

    config = options.service_config(accuracy, ramp_budget, batch_sizes, method)
    loaded = trained(checkpoint)
    socket = open_socket(host, http_port)
    with phases() as phase:
        service = prepare(loaded, config, phase)
    engine, feedback = service.apparate()
    name = model_name or loaded.model.name
    console = stderr()

    def on_ready(url: str) -> None:
        console.print(f"ready: {url}/v2/models/{name}", markup=False, soft_wrap=True)

    with engine:
        feedback.attach(engine)
        HttpServer(build_app(engine, model_name=name), socket, on_ready=on_ready).run()
    feedback.close()
    service.programs.close()
    console.print("stopped; every accepted request was answered")
