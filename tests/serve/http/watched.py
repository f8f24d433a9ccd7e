"""A server of telemetry alone, on a loopback port: what `apparate top` and the page talk to."""

import contextlib
import threading

from starlette.applications import Starlette

from apparate_jax.serve.http import HttpServer, open_socket
from apparate_jax.serve.http.telemetry import telemetry_routes


@contextlib.contextmanager
def watched(models, clock, *, port=0, index=None, middleware=()):
    """Serve telemetry until the end; gives the URL."""
    app = Starlette(routes=telemetry_routes(models, clock=clock, index=index))
    for one in middleware:
        app = one(app)
    with served(app, port=port) as url:
        yield url


@contextlib.contextmanager
def served(app, *, port=0):
    """Serve an application until the end; gives the URL."""
    started = threading.Event()
    server = HttpServer(app, open_socket("127.0.0.1", port), on_ready=lambda _: started.set())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield server.url
    finally:
        server.stop(now=True)
        thread.join(20)
        assert not thread.is_alive()
