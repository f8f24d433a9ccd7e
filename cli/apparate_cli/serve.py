"""``apparate serve``: serve checkpoints over HTTP and gRPC."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.live import Live

from apparate_cli import options
from apparate_cli.output import phases, stderr
from apparate_cli.top import Screen
from apparate_jax.errors import ConfigError
from apparate_jax.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from apparate_jax.serve.server import Running

WATCHED_EVERY_S = 1.0
HISTORY = 120
"""Samples that lines over time are of."""


# Long by its options: Typer reads them from the signature.
def serve(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CKPT]",
            help="Checkpoint, or a directory with one for each version; or name it in --config.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file; options that are given win over it.")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port of the HTTP server; 0 takes a free one. [8000]")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="Port of the gRPC server; 0 takes a free one. [8001]")
    ] = None,
    http: Annotated[bool, typer.Option("--http/--no-http", help="Serve over HTTP.")] = True,
    grpc: Annotated[bool, typer.Option("--grpc/--no-grpc", help="Serve over gRPC.")] = True,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    model_name: Annotated[
        str | None, typer.Option(help="Name under which clients ask for the model.")
    ] = None,
    accuracy: options.MaybeAccuracy = None,
    promise: options.MaybePromise = None,
    policy: options.MaybePolicy = None,
    method: options.MaybeMethod = None,
    ramp_budget: options.MaybeRampBudget = None,
    batch_sizes: options.MaybeBatchSizes = None,
    batching: options.MaybeBatching = None,
    batch_timeout_ms: options.MaybeBatchTimeoutMs = None,
    slo_ms: options.SloMs = None,
    queue_size: options.MaybeQueueSize = None,
    priority_levels: options.MaybePriorityLevels = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Keep what control has learnt here, for the next start.")
    ] = None,
    drain_timeout_s: Annotated[
        float | None, typer.Option(help="How long requests under way may take at the end. [30]")
    ] = None,
    model_control: Annotated[
        bool | None,
        typer.Option("--model-control", help="Let clients load, reload and unload models."),
    ] = None,
    api_keys_file: Annotated[
        Path | None, typer.Option(help="File of API keys, one a line; who has none is refused.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Who must have signed clients' certificates, PEM.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text, or json: one object a line. [text]")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. [info]")
    ] = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option(help="Where traces go, an OTLP/HTTP URL; nowhere unless given.")
    ] = None,
    versions: Annotated[
        str | None, typer.Option(help="Versions of CKPT to serve, comma-separated. [the latest]")
    ] = None,
    latest: Annotated[
        int | None, typer.Option(help="How many of the latest versions of CKPT to serve. [1]")
    ] = None,
    device: Annotated[
        int | None, typer.Option(help="Where models run, an index of jax.devices(). [0]")
    ] = None,
    pin_cores: Annotated[
        bool | None,
        typer.Option("--pin-cores", help="On a CPU: pin each computing thread to a core."),
    ] = None,
    assigned: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of the file, such as limits.max_body_bytes=1000; again for others.",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show live what the server does, as apparate top.")
    ] = False,
) -> None:
    """Serve early answers over the Open Inference Protocol (HTTP and gRPC).

    Example: apparate serve runs/demo/checkpoint --http-port 8000 --grpc-port 8001

    Everything can be said in a TOML file, in the environment (APPARATE_SERVE_HTTP_PORT=80) or
    here; what is said here wins. SIGHUP loads what changed on disk; SIGTERM ends the server once
    everything under way is answered, with status 1 where that was not done in time.
    """
    from apparate_jax.serve.logs import configure_logs
    from apparate_jax.serve.server import Server
    from apparate_jax.serve.settings import read_settings

    if not http and not grpc:
        raise ConfigError("--no-http and --no-grpc leave nothing to serve: keep one of them")
    of_one = {"--model-name": model_name, "--versions": versions, "--latest": latest}
    for option, value in of_one.items() if checkpoint is None else ():
        if value is not None:
            raise ConfigError(f"{option} is of a checkpoint: give one, or say it in --config")
    sizes = None if batch_sizes is None else options.parse_sizes(batch_sizes)
    given: dict[str, Any] = {
        "host": host,
        "http_port": http_port if http else "off",
        "grpc_port": grpc_port if grpc else "off",
        "state_dir": state_dir,
        "drain_timeout_s": drain_timeout_s,
        "model_control": model_control,
        "api_keys_file": api_keys_file,
        "pin_cores": pin_cores,
        "log_format": log_format,
        "log_level": log_level,
        "otlp_endpoint": otlp_endpoint,
        "tls": {"cert": tls_cert, "key": tls_key, "client_ca": tls_client_ca},
        "defaults": {
            "accuracy": accuracy,
            "promise": promise,
            "policy": policy,
            "method": method,
            "ramp_budget": ramp_budget,
            "batch_sizes": sizes,
            "batching": batching,
            "batch_timeout_ms": batch_timeout_ms,
            "slo_ms": slo_ms,
            "queue_size": queue_size,
            "priority_levels": priority_levels,
            "device": device,
        },
        "models": {},
    }
    if checkpoint is not None:
        chosen = None if versions is None else versions.split(",")
        one = {"path": checkpoint, "versions": chosen, "latest": latest}
        given["models"] = {model_name or _name_of(checkpoint): one}
    settings = read_settings(config, _said(given), assigned=assigned or ())
    configure_logs(settings.log_format, settings.log_level)
    with Server(settings) as server, contextlib.ExitStack() as ends:
        with phases() as phase:
            server.load(phase)

        def ready(running: "Running") -> None:
            for line in _places(running):
                stderr().print(line, soft_wrap=True)
            if watch:
                ends.enter_context(_watching(running))

        left = server.run(ready)
    if left:
        stderr().print(_unanswered(left, settings.drain_timeout_s), soft_wrap=True)
        _end_at_once(1)
    stderr().print("stopped; every accepted request was answered")


def _end_at_once(status: int) -> NoReturn:
    """End the process under threads that may still be inside a model's programs.

    Python would end them where they come back, and the C++ that they come back through aborts then.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _unanswered(count: int, drain_timeout_s: float) -> str:
    return (
        f"stopped; accepted requests that were not answered: {count}. They took longer than "
        f"{drain_timeout_s:g} s (--drain-timeout-s), or a second Ctrl-C ended the server at once"
    )


def _said(given: dict[str, Any]) -> dict[str, Any]:
    """What was typed, without what was not."""
    tables = {
        key: _said(value) if isinstance(value, dict) else value for key, value in given.items()
    }
    return {key: value for key, value in tables.items() if value is not None and value != {}}


def _name_of(place: Path) -> str:
    """The name of the model in a checkpoint; of a directory of versions, the directory's."""
    if (place / MANIFEST).is_file():
        return str(read_manifest(place)["model"]["name"])
    return place.resolve().name


def _places(running: "Running") -> Iterator[str]:
    """Where models are to be found, a line each; machines read them."""
    for name in running.models:
        if running.http is not None:
            yield f"ready: {running.http}/v2/models/{name}"
        if running.grpc is not None:
            yield f"ready: {running.grpc} model {name}"


@contextlib.contextmanager
def _watching(running: "Running") -> Iterator[None]:
    """Show the server's state, live, from a thread of its own."""
    ended = threading.Event()
    source = running.http or running.grpc or ""

    def watch() -> None:
        with Live(console=stderr(), auto_refresh=False) as live:
            while not ended.wait(WATCHED_EVERY_S):
                live.update(Screen(running.status(HISTORY), source), refresh=True)

    thread = threading.Thread(target=watch, name="apparate-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
