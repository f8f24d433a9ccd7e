"""What a server tells of itself over HTTP: metrics, status, and the page that shows it.

Status and metrics are made in worker threads: a few milliseconds that nobody's request waits for.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from apparate_jax.serve.inference import now_s
from apparate_jax.serve.telemetry import Models, render, server_status
from apparate_jax.serve.telemetry.history import SAMPLES

Index = Callable[[], Sequence[Mapping[str, str]]]
"""Entries ``name``, ``version``, ``state`` and ``reason`` of all models, loaded or not."""

PAGE = "apparate_jax.serve.page"
INDEX_FILE = "index.html"
FILES = {
    INDEX_FILE: "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uplot/uPlot.min.css": "text/css; charset=utf-8",
    "uplot/LICENSE": "text/plain; charset=utf-8",
}
"""The page's files in their package, and what they are."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "connect", "img")),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked about each time: the ETag answers that
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FRESH = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def telemetry_routes(
    models: Models,
    *,
    index: Index | None = None,
    clock: Callable[[], float] = now_s,
    page: bool = True,
) -> list[Route]:
    """Routes of an application: ``/metrics``, ``/apparate/status``, and the page at ``/``.

    Args:
        models: The counts of the models that are served now; asked at each request.
        index: All models, also those that are not served, so that it can be said why not.
        clock: Seconds of the engine's clock.
        page: Whether there is a page.
    """
    told = _Endpoints(models, index or (lambda: ()), clock)
    routes = [Route("/metrics", told.metrics), Route("/apparate/status", told.status)]
    if page:
        held = {name: _File.read(name, kind) for name, kind in FILES.items()}
        routes.append(Route("/", held.pop(INDEX_FILE).answer))
        routes += [Route(f"/page/{name}", one.answer) for name, one in held.items()]
    return routes


class _Endpoints:
    """The endpoints that are made anew for each request."""

    def __init__(self, models: Models, index: Index, clock: Callable[[], float]) -> None:
        self._models = models
        self._index = index
        self._clock = clock
        self._started_s = clock()

    def metrics(self, request: Request) -> Response:
        text, content_type = render(self._models, request.headers.get("accept", ""))
        return Response(text, headers={**_FRESH, "Content-Type": content_type})

    def status(self, request: Request) -> Response:
        asked = request.query_params.get("history", "0")
        if not asked.isdecimal() or len(asked) > 9:
            error = f"history is {asked[:40]!r}, expected a number of samples, 0 to {SAMPLES}"
            return JSONResponse({"error": error}, 400, _FRESH)
        found = server_status(
            self._models(),
            self._clock(),
            started_s=self._started_s,
            index=self._index(),
            history=int(asked),
        )
        return JSONResponse(found, headers=_FRESH)


class _File(NamedTuple):
    """A file of the page, in memory."""

    content: bytes
    headers: Mapping[str, str]

    @classmethod
    def read(cls, name: str, kind: str) -> "_File":
        content = files(PAGE).joinpath(name).read_bytes()
        tag = hashlib.sha256(content).hexdigest()[:20]
        return cls(content, {**_HEADERS, "Content-Type": kind, "ETag": f'"{tag}"'})

    async def answer(self, request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if self.headers["ETag"] in known:
            return Response(None, 304, headers=self.headers)
        return Response(self.content, headers=self.headers)
