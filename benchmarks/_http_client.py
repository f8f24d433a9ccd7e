"""An HTTP client that compares servers: the same bytes at the same times, whoever answers.

Little more than sockets, so that it takes little of the processors that it shares with the server.
Open loop: a request is due at its time, however many are under way, and its latency counts from
then. Connections are kept alive; there are as many as requests were under way at a time.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HOST = "127.0.0.1"
END = b"\r\n\r\n"
PATIENCE_S = 20.0
DATATYPES = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}


class Answer(NamedTuple):
    """What came back: latency from when the request was due, the top class, whether it was early.

    Without an answer the latency is NaN and the label -1.
    """

    latency_ms: float
    label: int
    early: bool


MISSING = Answer(float("nan"), -1, False)


def raw_request(path: str, row: Mapping[str, NDArray[Any]]) -> bytes:
    """A request whose body is the bytes of the inputs, one after the other."""
    return _post(path, b"".join(array.tobytes() for array in row.values()))


def inference_request(path: str, row: Mapping[str, NDArray[Any]]) -> bytes:
    """A request of the Open Inference Protocol for one example, with binary tensors."""
    inputs = [
        {
            "name": name,
            "shape": [1, *array.shape],
            "datatype": DATATYPES[array.dtype.name],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in row.items()
    ]
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    body = head + b"".join(array.tobytes() for array in row.values())
    return _post(path, body, f"Inference-Header-Content-Length: {len(head)}")


def _post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/octet-stream",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + END + body


class Client:
    """Connections to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes, due_s: float | None = None) -> Answer:
        """Send a request now; its latency counts from ``due_s`` (``time.perf_counter``)."""
        due_s = time.perf_counter() if due_s is None else due_s
        reader, writer = await self._connection()
        writer.write(request)
        head = await reader.readuntil(END)
        body = await reader.readexactly(_content_length(head))
        latency_ms = (time.perf_counter() - due_s) * 1e3
        self._free.append((reader, writer))
        if b" 200 " not in head[:14]:
            raise RuntimeError(f"{head.splitlines()[0]!r}: {body[:300]!r}")
        logits = np.frombuffer(body[-8:], "<f4")
        early = b'"exit":' in body and b'"final"' not in body
        return Answer(latency_ms, int(logits.argmax()), early)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(HOST, self._port)

    def close(self) -> None:
        """End the connections."""
        for _, writer in self._free:
            writer.close()


async def open_loop(
    port: int, requests: Sequence[bytes], due_s: NDArray[np.float64]
) -> list[Answer]:
    """Send each request at its time, f64[n] in seconds from the start."""
    client = Client(port)
    start_s = time.perf_counter() + 0.05

    async def one(request: bytes, at_s: float) -> Answer:
        return await client.ask(request, at_s)

    asked = []
    for request, offset_s in zip(requests, due_s, strict=True):
        at_s = start_s + float(offset_s)
        await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
        asked.append(asyncio.create_task(one(request, at_s)))
    _, late = await asyncio.wait(asked, timeout=PATIENCE_S)
    for task in late:
        task.cancel()
    found = await asyncio.gather(*asked, return_exceptions=True)
    client.close()
    return [MISSING if isinstance(one, BaseException) else one for one in found]


async def closed_loop(
    port: int, requests: Sequence[bytes], clients: int, seconds: float, settle_s: float
) -> float:
    """Answers per second with ``clients`` requests always under way, after ``settle_s``."""
    client, begun_s = Client(port), time.perf_counter()
    counted = 0

    async def loop(number: int) -> None:
        nonlocal counted
        at = number
        while time.perf_counter() - begun_s < settle_s + seconds:
            await client.ask(requests[at % len(requests)])
            at += clients
            counted += settle_s <= time.perf_counter() - begun_s < settle_s + seconds

    patience_s = settle_s + seconds + PATIENCE_S
    await asyncio.wait_for(asyncio.gather(*map(loop, range(clients))), patience_s)
    client.close()
    return counted / seconds


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"no content-length: {head!r}")
