"""Soak: minutes of load on both ports with reloads and client churn; every answer is checked.

``apparate serve`` runs as a process of its own. Clients send at a fixed share of the capacity that
was measured just before, of each protocol beside the other, at times set beforehand. They come and
go: connections are closed after a few dozen requests, calls are cancelled, connections break off in
the middle of a body. The checkpoint changes every 20 s. A request asks for a row of its own, and
its answer must name that row and carry the request's id.

Usage: ``python benchmarks/soak.py [MINUTES]`` (10 unless given). Writes results/soak.json
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _soak_model
import aiohttp
import numpy as np
import psutil
import tritonclient.grpc.aio as tritongrpc
from _common import write_result

CLIENTS = 8  # of each protocol
LOAD_FRAC = 0.7
WARM_UP_S, CAPACITY_S, RELOAD_EVERY_S, SAMPLE_EVERY_S = 1.0, 6.0, 20.0, 2.0
WARM_UP_FRAC = 0.25
CANCELLED, BROKEN = 0.02, 0.01  # of requests
EYE = np.eye(_soak_model.ROWS, dtype=np.float32)
EXPECTED = (asyncio.CancelledError, TimeoutError)


@dataclass
class Tally:
    """What clients saw."""

    counts: Counter[str] = field(default_factory=Counter)
    latency_ms: dict[str, list[float]] = field(default_factory=lambda: {"http": [], "grpc": []})
    errors: list[str] = field(default_factory=list)

    def answered(self, protocol: str, right: bool, early: bool, begun_s: float) -> None:
        """Count an answer."""
        self.counts["answered"] += 1
        self.counts["early"] += early
        self.counts["mismatched"] += not right
        self.latency_ms[protocol].append((time.perf_counter() - begun_s) * 1e3)

    def failed(self, error: Exception) -> None:
        """Count an error; the first ones are kept."""
        self.counts["errors"] += 1
        if len(self.errors) < 10:
            self.errors.append(f"{type(error).__name__}: {error}")


class Http:
    """A client over HTTP with one connection."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))

    async def ask(self, row: int, name: str) -> tuple[bool, bool]:
        """Whether the answer is the request's, and whether it left early."""
        given = {"name": "x", "shape": [1, _soak_model.ROWS], "datatype": "FP32"}
        given["parameters"] = {"binary_data_size": EYE[row].nbytes}
        head = json.dumps({"id": name, "inputs": [given], "outputs": [{"name": "label"}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        url = f"http://{self._address}/v2/models/rows/infer"
        sent = self._session.post(url, data=head + EYE[row].tobytes(), headers=headers)
        async with sent as response:
            body = await response.json()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {body['error']}")
        right = body["id"] == name and body["outputs"][0]["data"] == [row]
        return right, body["parameters"]["exit"] != "final"

    async def break_off(self) -> None:
        """Connect, send half a body, and go."""
        _, writer = await asyncio.open_connection(*self._address.split(":"))
        writer.write(b"POST /v2/models/rows/infer HTTP/1.1\r\nContent-Length: 900\r\n\r\n{")
        await writer.drain()
        writer.transport.abort()

    async def close(self) -> None:
        """End the connection."""
        await self._session.close()


class Grpc:
    """A client over gRPC with one channel."""

    def __init__(self, address: str) -> None:
        # Else channels of one process share a connection.
        own = [("grpc.use_local_subchannel_pool", 1)]
        self._address = address
        self._client = tritongrpc.InferenceServerClient(address, channel_args=own)

    async def ask(self, row: int, name: str) -> tuple[bool, bool]:
        """Whether the answer is the request's, and whether it left early."""
        given = tritongrpc.InferInput("x", [1, _soak_model.ROWS], "FP32")
        given.set_data_from_numpy(EYE[row : row + 1])
        wanted = [tritongrpc.InferRequestedOutput("label")]
        result = await self._client.infer("rows", [given], outputs=wanted, request_id=name)
        response = result.get_response()
        right = response.id == name and result.as_numpy("label").tolist() == [row]
        return right, response.parameters["exit"].string_param != "final"

    async def break_off(self) -> None:
        """Connect, send what is no HTTP/2, and go."""
        _, writer = await asyncio.open_connection(*self._address.split(":"))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00")
        await writer.drain()
        writer.transport.abort()

    async def close(self) -> None:
        """End the connection."""
        await self._client.close()


KINDS: dict[str, type[Http] | type[Grpc]] = {"http": Http, "grpc": Grpc}


async def one_client(
    protocol: str, address: str, number: int, every_s: float, until_s: float, tally: Tally
) -> None:
    """Ask until the time is over: at set times, or one after the other where ``every_s`` is 0."""
    rng, client, left = random.Random(number), KINDS[protocol](address), 0
    due_s = time.perf_counter() + rng.random() * every_s
    for turn in itertools.count():
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        begun_s = due_s if every_s else time.perf_counter()
        if max(begun_s, time.perf_counter()) >= until_s:
            break  # also of one that fell behind: what it did not send, it does not send later
        due_s += every_s
        left -= 1
        if left <= 0 and every_s:
            await client.close()
            client, left = KINDS[protocol](address), rng.randrange(20, 60)
            tally.counts["connections"] += 1
        asking = asyncio.create_task(
            client.ask(rng.randrange(_soak_model.ROWS), f"{number}-{turn}")
        )
        fate = rng.random() if every_s else 1.0
        try:
            if fate < CANCELLED:
                await asyncio.wait_for(asking, rng.random() * 2e-3)
            elif fate < CANCELLED + BROKEN:
                await client.break_off()
                tally.counts["broken_off"] += 1
            right, early = await asking
            tally.answered(protocol, right, early, begun_s)
        except EXPECTED:
            tally.counts["cancelled"] += 1
        except Exception as error:
            tally.failed(error)
    await client.close()


async def load(server: "Server", rates: dict[str, float], duration_s: float, tally: Tally) -> None:
    """All clients together, at requests per second by protocol; one after the other if 0."""
    every_s = {protocol: CLIENTS / rate if rate else 0.0 for protocol, rate in rates.items()}
    until_s = time.perf_counter() + duration_s
    await asyncio.gather(
        *(
            one_client(
                protocol, server.ports[protocol], 2 * i + j, every_s[protocol], until_s, tally
            )
            for i in range(CLIENTS)
            for j, protocol in enumerate(KINDS)
        )
    )


class Server:
    """``apparate serve`` as a process, its memory, and what it logs."""

    def __init__(self, root: Path) -> None:
        self._place, self._log, self._changes = root / "rows", root / "log", 0
        # Made beforehand: tracing in this process would hold up its clients.
        self._versions = [root / f"rows-{number}" for number in range(2)]
        for number, version in enumerate(self._versions):
            _soak_model.save(version, 1.0 + 0.01 * number)
        self._replace()
        command = [str(Path(sysconfig.get_path("scripts")) / "apparate"), "serve", str(self._place)]
        command += ["--http-port", "0", "--grpc-port", "0", "--batch-sizes", "1,2,4,8"]
        command += ["--state-dir", str(root / "state"), "--ramp-budget", "100"]
        path = {"PYTHONPATH": str(Path(__file__).parent)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, **path})
        try:
            self.ports = self._wait()
        except BaseException:
            self.process.kill()
            raise
        self.rss_mib: list[tuple[float, float]] = []

    def _wait(self) -> dict[str, str]:
        for _ in range(600):
            time.sleep(0.2)
            ready = [line.split()[1] for line in self.log() if line.startswith("ready: ")]
            if len(ready) == 2:
                return {url.split(":")[0]: url.split("//")[1].split("/")[0] for url in ready}
            if self.process.poll() is not None:
                break
        raise RuntimeError("the server did not begin: " + "\n".join(self.log()))

    def log(self) -> list[str]:
        """Lines so far."""
        return self._log.read_text(errors="replace").splitlines()

    def _replace(self) -> None:
        fresh = self._place.with_name("fresh")
        shutil.copytree(self._versions[self._changes % 2], fresh)
        self._changes += 1
        shutil.rmtree(self._place, ignore_errors=True)
        fresh.rename(self._place)

    async def watch(self) -> None:
        """Change the checkpoint now and then, and note memory all the time."""
        begun_s, seen = time.monotonic(), psutil.Process(self.process.pid)
        next_s = RELOAD_EVERY_S
        while True:
            passed_s = time.monotonic() - begun_s
            self.rss_mib.append((passed_s, seen.memory_info().rss / 2**20))
            if passed_s >= next_s:
                next_s += RELOAD_EVERY_S
                await asyncio.to_thread(self._replace)
                self.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(SAMPLE_EVERY_S)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server for the length of the benchmark."""
    with tempfile.TemporaryDirectory() as root:
        server = Server(Path(root))
        try:
            yield server
        finally:
            server.process.kill()
            server.process.wait()


async def soak(server: Server, duration_s: float) -> tuple[dict[str, float], Tally]:
    """Measure each protocol's capacity beside the other, then load it with a share of that."""
    closed, tally, full = Tally(), Tally(), dict.fromkeys(KINDS, 0.0)
    await load(server, full, WARM_UP_S, Tally())
    await load(server, full, CAPACITY_S, closed)
    capacity = {protocol: len(found) / CAPACITY_S for protocol, found in closed.latency_ms.items()}
    watching = asyncio.create_task(server.watch())
    rates = {protocol: LOAD_FRAC * most for protocol, most in capacity.items()}
    await load(server, rates, duration_s, tally)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    return capacity, tally


def memory(samples: list[tuple[float, float]]) -> dict[str, Any]:
    """Growth between the first and the last fifth after the warm-up, and the rate of a line."""
    times, rss = np.asarray(samples[int(WARM_UP_FRAC * len(samples)) :]).T
    fifth = max(1, len(rss) // 5)
    start, end = float(np.median(rss[:fifth])), float(np.median(rss[-fifth:]))
    return {
        "rss_mib_start": round(start, 1),
        "rss_mib_end": round(end, 1),
        "growth_pct": round(100 * (end / start - 1), 2),
        "slope_mib_per_min": round(60 * float(np.polyfit(times, rss, 1)[0]), 2),
        "rss_mib": [round(value, 1) for _, value in samples[:: max(1, len(samples) // 60)]],
    }


def main() -> None:
    """Run it and write what came out."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with serving() as server:
        capacity, tally = asyncio.run(soak(server, 60 * minutes))
        server.process.send_signal(signal.SIGTERM)
        status, log = server.process.wait(60), server.log()
    result = {
        "minutes": minutes,
        "clients": 2 * CLIENTS,
        "capacity_rps": {protocol: round(most, 1) for protocol, most in capacity.items()},
        "load_frac": LOAD_FRAC,
        "reloads": sum("is loaded" in line for line in log) - 1,
        **{key: tally.counts[key] for key in ("answered", "early", "errors", "mismatched")},
        **{key: tally.counts[key] for key in ("connections", "cancelled", "broken_off")},
        "first_errors": tally.errors,
        "latency_ms": {
            protocol: {f"p{p}": round(float(np.percentile(found, p)), 2) for p in (50, 95, 99)}
            for protocol, found in tally.latency_ms.items()
        },
        "memory": memory(server.rss_mib),
        "tracebacks_in_log": sum(line.startswith("Traceback") for line in log),
        "exit_status": status,
    }
    print(json.dumps(result, indent=1))
    write_result("soak", result)


if __name__ == "__main__":
    main()
