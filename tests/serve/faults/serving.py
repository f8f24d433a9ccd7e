"""A whole server for the length of a test, and plain sockets that send it anything."""

import contextlib
import json
import socket
import threading
from types import SimpleNamespace

import numpy as np

from apparate_jax.serve.server import Server
from apparate_jax.serve.settings import read_settings
from tests.serve.repository import made

URL = "/v2/models/one/infer"
X = made.EXAMPLE["x"][None]
LIMITS = {"max_body_bytes": 200_000, "body_timeout_s": 0.4}


@contextlib.contextmanager
def serving(path, **given):
    """One model on both ports; yields addresses, the engine and the repository."""
    table = {"path": path, "batch_sizes": [1, 2], "ramp_budget": 100.0}
    settings = {"http_port": 0, "grpc_port": 0, "limits": LIMITS, "models": {"one": table}}
    ready, found = threading.Event(), []
    with Server(read_settings(given={**settings, **given}, environment={})) as server:
        server.load()

        def on_ready(running):
            found.append(running)
            ready.set()

        thread = threading.Thread(target=server.run, args=(on_ready,), daemon=True)
        thread.start()
        assert ready.wait(30)
        deployment = server._repository._models["one"].running["1"]
        try:
            yield SimpleNamespace(
                http=found[0].http.removeprefix("http://"),
                grpc=found[0].grpc.removeprefix("grpc://"),
                repository=server._repository,
                deployment=deployment,
                engine=deployment._engine,
            )
        finally:
            for frontend in (server._http, server._grpc):
                frontend.stop()
            thread.join(30)
            assert not thread.is_alive()


def connect(address):
    """A plain connection; whatever waits on it fails after 10 s."""
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def tensor(**changes):
    """The model's input as JSON, with other fields; None leaves one out."""
    given = {"name": "x", "shape": list(X.shape), "datatype": "FP32", "data": X.ravel().tolist()}
    return {key: value for key, value in {**given, **changes}.items() if value is not None}


def infer(*inputs, **fields):
    """A request's JSON."""
    return json.dumps({"inputs": list(inputs), **fields}).encode()


def post(body, path=URL, length=None, **headers):
    """The bytes of a POST; its Content-Length may lie."""
    named = {"Content-Length": len(body) if length is None else length, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: x", *lines, "", "")).encode() + body


RAW = X.tobytes()


def binary(size, data=RAW, head_length=None, **changes):
    """A request with a raw tensor that says it has ``size`` bytes."""
    given = tensor(data=None, parameters={"binary_data_size": size}, **changes)
    head = infer(given)
    length = len(head) if head_length is None else head_length
    return post(head + data, Inference_Header_Content_Length=length)


def exchange(address, data):
    """Send bytes; the status and the text of the first response."""
    with connect(address) as sock:
        with contextlib.suppress(ConnectionError):  # refused before all of it was sent
            sock.sendall(data)
        return response(sock)


def response(sock):
    """Status and body of the next response; (0, "") where the connection ends without one."""
    with sock.makefile("rb") as stream:
        line = stream.readline()
        if not line:
            return 0, ""
        length = 0
        while (header := stream.readline().strip()) != b"":
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return int(line.split()[1]), stream.read(length).decode()


def own_logits():
    """The original's for ``X``, computed apart from the server."""
    model = made.load_model(made.REFERENCE)
    return np.asarray(model.apply(model.params, X))[0]


def check_good(running):
    """The next good request is answered right, and nothing is left open."""
    exact = infer(tensor(), parameters={"accuracy": "exact"}, outputs=[{"name": "logits"}])
    status, text = exchange(running.http, post(exact))
    assert status == 200, text
    np.testing.assert_allclose(json.loads(text)["outputs"][0]["data"], own_logits(), rtol=1e-4)
    check_idle(running)


def check_idle(running):
    """No request waits, is open, or holds the model."""
    assert running.engine.wait_idle(10) and running.engine.waiting == 0
    with running.deployment._free:
        assert running.deployment._free.wait_for(lambda: running.deployment._leases == 0, 10)
