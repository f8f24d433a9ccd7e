"""What the HTTP server adds to a request, from the client's socket and back.

A closed-loop client in a process of its own sends one request after the other over one connection
on loopback. The engine behind the server is a stub on a thread of its own that takes a fixed time;
it notes the time from submission to answer, which is taken off each request's latency. The floor is
an application on the same server and engine that only reads the body and returns 200 bytes: what
remains is sockets, the HTTP parser, and waking threads that slept while the engine worked.

Usage: ``python benchmarks/http_overhead.py`` (about 20 s)
"""

import asyncio
import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from _common import machine, write_result
from _one_model import OneModel
from _stub_engine import StubEngine
from numpy.typing import NDArray
from starlette.types import ASGIApp, Receive, Scope, Send

from apparate_jax.core import InputSpec
from apparate_jax.serve.http import HttpServer, build_app, open_socket

PATH = "/v2/models/stub/infer"
WARM_UP = 30
BUDGET_S = 1.2
MAX_REQUESTS = 3000


class Case(NamedTuple):
    """A kind of request: inputs by name (with the batch axis), classes, form, engine's time."""

    inputs: Mapping[str, NDArray[Any]]
    classes: int
    binary: bool
    service_ms: float


def floor_app(engine: StubEngine, rows: int) -> ASGIApp:
    """Read the body, wait for the engine, return 200 bytes."""
    headers = [(b"content-length", b"200"), (b"content-type", b"application/json")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        futures = [engine.submit({}) for _ in range(rows)]
        await asyncio.wrap_future(futures[-1])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(200)})

    return app


@contextmanager
def running(app: ASGIApp) -> Iterator[int]:
    """Serve on a free port; gives the port."""
    started = threading.Event()
    sock = open_socket("127.0.0.1", 0)
    port = sock.getsockname()[1]
    server = HttpServer(app, sock, on_ready=lambda url: started.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    started.wait()
    try:
        yield port
    finally:
        server.stop()
        thread.join()


def message(case: Case) -> bytes:
    """The bytes of one request."""
    datatypes = {"int64": "INT64", "float32": "FP32"}
    tail, inputs = b"", []
    for name, array in case.inputs.items():
        entry = {"name": name, "shape": array.shape, "datatype": datatypes[array.dtype.name]}
        if case.binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            entry["data"] = array.ravel().tolist()
        inputs.append(entry)
    request: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": case.binary}}
    head = json.dumps(request).encode()
    lines = [f"POST {PATH} HTTP/1.1", "Host: localhost", f"Content-Length: {len(head + tail)}"]
    if case.binary:
        lines.append(f"Inference-Header-Content-Length: {len(head)}")
    return "\r\n".join([*lines, "", ""]).encode() + head + tail


def client(port: int, request: bytes) -> list[float]:
    """Latency of each request in ms, one after the other; runs in a process of its own."""
    latencies: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = sock.makefile("rb")
        end_s = time.perf_counter() + BUDGET_S
        while len(latencies) < MAX_REQUESTS + WARM_UP and (
            time.perf_counter() < end_s or len(latencies) < 2 * WARM_UP
        ):
            start_s = time.perf_counter()
            sock.sendall(request)
            status = stream.readline()
            length = 0
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            body = stream.read(length)
            latencies.append((time.perf_counter() - start_s) * 1e3)
            if b" 200 " not in status:
                raise RuntimeError(f"{status!r}: {body[:300]!r}")
    return latencies


def figures(values_ms: NDArray[np.float64]) -> dict[str, float]:
    """Median and tail."""
    return {
        "requests": len(values_ms),
        "p50_ms": round(float(np.percentile(values_ms, 50)), 4),
        "p99_ms": round(float(np.percentile(values_ms, 99)), 4),
    }


def cases() -> dict[str, Case]:
    """The requests that are tried."""
    rng = np.random.default_rng(0)

    def text(rows: int = 1) -> dict[str, NDArray[Any]]:
        ids = rng.integers(0, 30000, (rows, 128))
        return {"input_ids": ids, "attention_mask": np.ones((rows, 128), np.int64)}

    image = {"image": rng.random((1, 224, 224, 3), np.float32)}
    return {
        "text, binary, engine 0 ms": Case(text(), 2, True, 0.0),
        "text, binary, engine 5 ms": Case(text(), 2, True, 5.0),
        "text, json, engine 0 ms": Case(text(), 2, False, 0.0),
        "text, json, engine 5 ms": Case(text(), 2, False, 5.0),
        "text, binary, 8 rows, engine 5 ms": Case(text(8), 2, True, 5.0),
        "image, binary, 1000 classes, engine 5 ms": Case(image, 1000, True, 5.0),
        "image, json, 1000 classes, engine 5 ms": Case(image, 1000, False, 5.0),
    }


def measure(case: Case, run: Callable[..., list[float]]) -> dict[str, Any]:
    """What the server, and the floor, add to one kind of request."""
    request = message(case)
    rows = len(next(iter(case.inputs.values())))
    inputs = [InputSpec(n, a.shape[1:], a.dtype.name) for n, a in case.inputs.items()]
    added: dict[str, dict[str, float]] = {}
    for name in ("added", "floor"):
        engine = StubEngine(inputs, case.classes, case.service_ms, rows=rows)
        ours = build_app(OneModel(engine, name="stub"))
        app = ours if name == "added" else floor_app(engine, rows)
        try:
            with running(app) as port:
                latencies = np.array(run(port, request))
        finally:
            engine.close()
        added[name] = figures((latencies - np.array(engine.spans_ms))[WARM_UP:])
    return {"request_bytes": len(request), **added}


def main() -> None:
    """Measure every case and write the result."""
    where = machine()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        results = {}
        for name, case in cases().items():
            results[name] = measure(case, lambda *args: pool.apply(client, args))
            added, floor = results[name]["added"], results[name]["floor"]
            print(
                f"{name:42} added p50 {added['p50_ms']:.3f} p99 {added['p99_ms']:.3f} ms, "
                f"floor p50 {floor['p50_ms']:.3f} p99 {floor['p99_ms']:.3f} ms"
            )
    write_result("http_overhead", {"machine": where, "cases": results})


if __name__ == "__main__":
    main()
