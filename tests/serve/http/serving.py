"""A server on a loopback port for the length of a test, and plain sockets to talk to it."""

import contextlib
import json
import socket
import threading

import numpy as np
from benchmarks._one_model import OneModel

from apparate_jax.serve.http import HttpServer, build_app, open_socket
from tests.serve.inference.linear import LinearEngine, logits_of

URL = "/v2/models/linear/infer"
X = np.array([[1.0, 0.0, 0.0], [0.1, 0.1, 0.0], [0.0, 4.0, 1.0]], np.float32)
IDS = np.array([[0, 0], [0, 3], [1, 2]], np.int32)
LOGITS = logits_of(X, IDS)


class Running:
    """A running server: its engine, its URL, and how to end it."""

    def __init__(self, engine, limits=None, max_rows=256, **options):
        self.engine = engine
        self.started = threading.Event()
        self.sock = open_socket("127.0.0.1", 0)
        self.port = self.sock.getsockname()[1]
        models = OneModel(engine, name="linear", version="3", max_rows=max_rows)
        app = build_app(models, limits=limits)
        self.server = HttpServer(app, self.sock, on_ready=self._on_ready, **options)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        assert self.started.wait(20)

    def _on_ready(self, url):
        self.url = url
        self.started.set()

    def stop(self):
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def connect(self):
        """A plain connection."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        sock.settimeout(20)
        return sock


@contextlib.contextmanager
def serving(limits=None, engine=None, **options):
    """Serve the linear model; ends the server and then the engine."""
    engine = engine or LinearEngine()
    running = Running(engine, limits, **options)
    try:
        yield running
    finally:
        engine.gate.set()
        engine.last_gate.set()
        running.stop()
        engine.close()


def request_of(rows=slice(0, 1), nested=True, **fields):
    """A JSON request for some of the rows of ``X`` and ``IDS``."""
    inputs = [
        {
            "name": name,
            "shape": list(array[rows].shape),
            "datatype": datatype,
            "data": array[rows].tolist() if nested else array[rows].ravel().tolist(),
        }
        for name, datatype, array in (("x", "FP32", X), ("ids", "INT64", IDS))
    ]
    return {"inputs": inputs, **fields}


def binary_request(rows=slice(0, 1), **fields):
    """A request with raw tensors: body and headers."""
    arrays = (("x", "FP32", X[rows]), ("ids", "INT64", IDS[rows].astype(np.int64)))
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, datatype, array in arrays
    ]
    head = json.dumps({"inputs": inputs, **fields}).encode()
    body = head + b"".join(array.tobytes() for _, _, array in arrays)
    return body, {"Inference-Header-Content-Length": str(len(head))}


def raw_post(body, length=None, extra=""):
    """The bytes of a POST whose Content-Length may lie."""
    length = len(body) if length is None else length
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {length}\r\n\r\n"
    return head.encode() + body


def read_response(sock):
    """Status and JSON of the next response on a plain connection."""
    stream = sock.makefile("rb")
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, json.loads(stream.read(length))
