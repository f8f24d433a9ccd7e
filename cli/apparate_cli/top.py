"""``apparate top``: what a running server does, live in the terminal."""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from apparate_cli import options
from apparate_cli.output import STDOUT, Output
from apparate_cli.screen import Status, screen
from apparate_jax.errors import ApparateError, ConfigError

HISTORY = 120
"""Samples that lines over time are of."""
TIMEOUT_S = 10.0
MIN_INTERVAL_S = 0.1
MAX_BYTES = 64 * 1024 * 1024

Fetch = Callable[[], dict[str, Any]]


class UnreachableError(ApparateError, OSError):
    """A server that is not there, or is something else."""


def top(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Of the HTTP server, as in http://localhost:8000.")
    ] = "http://127.0.0.1:8000",
    interval: Annotated[float, typer.Option(help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print the state now, and end.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Show this model in full, where there are several.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="APPARATE_API_KEY", help="Where the server wants one.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="Certificates to trust, as PEM, for https.")
    ] = None,
    json_path: options.Json = None,
) -> None:
    """Show what a server does: latency and what is saved, exits, agreement, queue, events.

    Example: apparate top http://localhost:8000

    Ctrl-C ends it. Where standard output is no terminal, one state is printed, as with --once.
    """
    if not interval >= MIN_INTERVAL_S:
        raise ConfigError(f"the interval is {interval} s, expected at least {MIN_INTERVAL_S}")
    fetch = fetcher(url, api_key=api_key, ca=ca)
    output = Output(json_path)
    console = Console(highlight=False, markup=False, emoji=False)
    status = fetch()
    if json_path is not None or once or not console.is_terminal:
        if json_path != STDOUT:
            output.show(Screen(status, url, model))
        output.write(status)
        return
    try:
        _live(console, status, fetch, url, model, interval)
    except KeyboardInterrupt:
        return  # the usual way to end it


def _live(
    console: Console, status: Status, fetch: Fetch, url: str, model: str | None, interval: float
) -> None:
    if model is None and len(status["models"]) > 1:
        model = status["models"][0]["name"]
    shown: RenderableType = Screen(status, url, model)
    with Live(shown, console=console, screen=True, auto_refresh=False) as live:
        for state, problem in _states(status, fetch, interval):
            shown = Screen(state, url, model)
            if problem is not None:
                shown = Group(Text(problem, style="bold red"), shown)
            live.update(shown, refresh=True)


def _states(status: Status, fetch: Fetch, interval: float) -> Iterator[tuple[Status, str | None]]:
    """The state each time, or the last one with what is wrong; a server may be gone for a while."""
    seen, problem = time.strftime("%H:%M:%S"), None
    while True:
        yield status, problem
        time.sleep(interval)
        try:
            status, seen, problem = fetch(), time.strftime("%H:%M:%S"), None
        except UnreachableError as error:
            problem = f"{error}; what is below is from {seen}"


class Screen:
    """A status that is laid out for the console that prints it."""

    def __init__(self, status: Status, source: str = "", model: str | None = None) -> None:
        """Nothing is laid out yet.

        Args:
            status: See :func:`~apparate_cli.screen.screen`.
            source: Where it is from.
            model: The one that is shown in full; every one if None.
        """
        self._status = status
        self._source = source
        self._model = model

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay it out in the columns that there are."""
        yield screen(
            self._status,
            width=options.max_width,
            source=self._source,
            model=self._model,
            ascii_only=options.ascii_only,
        )


def fetcher(url: str, *, api_key: str | None = None, ca: Path | None = None) -> Fetch:
    """A function that asks a server for its status.

    Args:
        url: Of the server; what stands behind its port is kept.
        api_key: Sent along, if there is one.
        ca: Certificates to trust instead of the system's.

    Raises:
        ConfigError: The URL or the certificates are none.
    """
    scheme, there, _ = url.partition("://")
    if not there or scheme not in ("http", "https"):
        raise ConfigError(f"the URL is {url!r}, expected one like http://localhost:8000")
    try:
        trust = ssl.create_default_context(cafile=ca) if scheme == "https" else None
    except OSError as error:
        raise ConfigError(f"cannot read certificates from {ca}: {error}") from error
    headers = {"Accept": "application/json"} | ({"X-API-Key": api_key} if api_key else {})
    asked = f"{url.rstrip('/')}/apparate/status?history={HISTORY}"
    return lambda: _ask(urllib.request.Request(asked, headers=headers), url, trust)


def _ask(request: urllib.request.Request, url: str, trust: ssl.SSLContext | None) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=trust) as response:
            found = json.loads(response.read(MAX_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise UnreachableError(f"{url} answers {error.code}: {_reason(error.code)}") from error
    except urllib.error.URLError as error:
        raise UnreachableError(f"no server answers at {url}: {error.reason}") from error
    except OSError as error:
        raise UnreachableError(f"no server answers at {url}: {error}") from error
    except http.client.HTTPException as error:
        raise UnreachableError(f"{url} does not speak HTTP: is it the port of gRPC?") from error
    except ValueError as error:
        raise UnreachableError(f"{url} is no apparate server: its answer is no JSON") from error
    if not isinstance(found, dict) or not {"server", "models"} <= found.keys():
        raise UnreachableError(f"{url} is no apparate server: its status is something else")
    return found


def _reason(code: int) -> str:
    if code == 401:
        return "it wants an API key, give one with --api-key or APPARATE_API_KEY"
    if code == 404:
        return "it has no /apparate/status, is it the HTTP server of apparate serve?"
    return "ask it again later, or read its log"
