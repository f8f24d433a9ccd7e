"""Both frontends over one engine, in this process."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from _one_model import OneModel

from apparate_jax.serve.grpc import GrpcServer
from apparate_jax.serve.http import HttpServer, build_app
from apparate_jax.serve.inference import Answering
from apparate_jax.serve.listen import open_socket
from apparate_jax.serve.running import run_frontends

START_S = 20.0


@contextmanager
def serving(engine: Answering, name: str) -> Iterator[tuple[str, str]]:
    """Serve an engine under a name; gives the HTTP URL and the gRPC address."""
    ready = threading.Event()
    models = OneModel(engine, name=name)
    http = HttpServer(build_app(models, page=False), open_socket("127.0.0.1", 0))
    grpc = GrpcServer(models, open_socket("127.0.0.1", 0))
    thread = threading.Thread(target=run_frontends, args=([http, grpc], ready.set))
    thread.start()
    if not ready.wait(START_S):
        raise RuntimeError(f"the server did not start within {START_S:g} s")
    gc.collect()
    gc.freeze()  # as the server does: a full collection looks at all that JAX keeps
    try:
        yield http.url, grpc.url.removeprefix("grpc://")
    finally:
        http.stop()
        grpc.stop()
        thread.join()
