"""HTTP server of the Open Inference Protocol v2 over an engine.

``build_app`` makes the application, ``serve_http`` runs it until a signal comes and lets requests
that are under way finish. Endpoints, examples and errors: docs/http.md.
"""

from apparate_jax.serve.http.app import build_app
from apparate_jax.serve.http.limits import HttpLimits
from apparate_jax.serve.http.server import HttpServer, serve_http
from apparate_jax.serve.inference import Answering
from apparate_jax.serve.listen import open_socket

__all__ = [
    "Answering",
    "HttpLimits",
    "HttpServer",
    "build_app",
    "open_socket",
    "serve_http",
]
