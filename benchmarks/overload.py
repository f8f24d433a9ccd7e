"""Overload: three times what a server can answer, for a minute, with a deadline for every request.

``apparate serve --batching slo`` runs as a process of its own, and so do the clients: half the
capacity, three times the capacity for 60 s, half of it again, in open loop at Poisson times. The
capacity is what the same model answers where nobody is refused (``--batching immediate``) and 32
clients always wait, before and after. The objective is ten full batches of that.

Refusals take processors from a model that computes on all of them. What that alone costs is the
capacity beside a process that does nothing but take as much, in as many pieces: what the server's
event loop and the clients took in the overload, less what they take for answers.

Targets: answers within the objective at 95 % of the capacity or more; p99 of what was accepted
within the objective; all else 503 with Retry-After; nothing is refused once the overload is over.

Usage: ``python benchmarks/overload.py [SECONDS]`` (60 unless given). Needs the demo's model
(trained once into runs/bench). Writes results/overload.json
"""

import asyncio
import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from _common import write_result
from _demo import RUN, demo_checkpoint
from _served import Served, cpu_s_of, free_port, main_thread_s_of
from numpy.typing import NDArray

FULL, CALM = 3.0, 0.5
CALM_S, CAPACITY_S, SETTLE_S = 10.0, 10.0, 2.0
CLIENTS, LARGEST, SLO_BATCHES = 32, 8, 10
SEED = 11
START_S = 240.0
MODEL = "model"
NAMES = ("before", "overload", "after")


def body_of() -> tuple[bytes, dict[str, str]]:
    """A request of one example in binary, and its headers."""
    arrays = {
        spec.name: np.asarray(array)
        for model in [demo_checkpoint().model]
        for spec, array in zip(model.inputs, model.example_inputs(1), strict=True)
    }
    inputs = [
        {
            "name": name,
            "shape": array.shape,
            "datatype": array.dtype.name.upper(),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "label"}]}).encode()
    data = head + b"".join(array.tobytes() for array in arrays.values())
    return data, {"Inference-Header-Content-Length": str(len(head))}


class Clients:
    """Connections to a server, and what came of each request."""

    def __init__(self, port: int, body: bytes, headers: dict[str, str]) -> None:
        self._url = f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer"
        self._body, self._headers = body, headers
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def ask(self, due_s: float) -> tuple[float, int, bool]:
        """Latency in ms from when it was due, status, and whether it says when to come again."""
        async with self._session.post(
            self._url, data=self._body, headers=self._headers
        ) as response:
            await response.read()
        passed_ms = 1e3 * (time.perf_counter() - due_s)
        return passed_ms, response.status, "Retry-After" in response.headers

    async def open_loop(self, offsets_s: NDArray[np.float64]) -> list[tuple[float, int, bool]]:
        """Each request at its time, however many are under way."""
        start_s, asked = time.perf_counter() + 0.05, []
        for offset_s in offsets_s.tolist():
            await asyncio.sleep(max(0.0, start_s + offset_s - time.perf_counter()))
            asked.append(asyncio.create_task(self.ask(start_s + offset_s)))
        return list(await asyncio.gather(*asked))

    async def closed_loop(self, seconds: float) -> float:
        """Answers per second where :data:`CLIENTS` requests are always under way."""
        begun_s, counted = time.perf_counter(), 0

        async def loop() -> None:
            nonlocal counted
            while (now_s := time.perf_counter()) < begun_s + SETTLE_S + seconds:
                await self.ask(now_s)
                counted += begun_s + SETTLE_S <= time.perf_counter() < begun_s + SETTLE_S + seconds

        await asyncio.gather(*(loop() for _ in range(CLIENTS)))
        return counted / seconds

    async def close(self) -> None:
        """End the connections."""
        await self._session.close()


def poisson(rate: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Times of arrival f64[n] in seconds."""
    times = np.cumsum(rng.exponential(1 / rate, int(rate * seconds * 1.5) + 100))
    return times[times < seconds]


def handling_s(pid: int) -> float:
    """Processor seconds of the server's event loop and of these clients, so far."""
    return main_thread_s_of(pid) + time.process_time()


def used_s(pid: int) -> tuple[float, float, float]:
    """Processor seconds so far: the server, these clients, and what handles requests of both."""
    return cpu_s_of(pid), time.process_time(), handling_s(pid)


def take_processor(cores: float, pieces_per_s: float) -> None:
    """Take so much of a processor for ever, in so many pieces a second."""
    due_s = time.perf_counter()
    while True:
        due_s += 1 / pieces_per_s
        time.sleep(max(0.0, due_s - time.perf_counter()))
        end_s = time.perf_counter() + cores / pieces_per_s
        while time.perf_counter() < end_s:
            pass


async def client(job: dict[str, Any]) -> Any:
    """What the clients' process does: measure the capacity, or send at given rates in turn."""
    clients = Clients(job["port"], *body_of())
    try:
        if job["phases"] is None:
            before_s, begun_s = handling_s(job["pid"]), time.perf_counter()
            answered_rps = await clients.closed_loop(CAPACITY_S)
            took_s = handling_s(job["pid"]) - before_s
            return answered_rps, took_s / (time.perf_counter() - begun_s)
        rng, found = np.random.default_rng(SEED), []
        for rate, seconds in job["phases"]:
            offsets = poisson(rate, seconds, rng)
            before = used_s(job["pid"])
            answers = await clients.open_loop(offsets)
            took = np.subtract(used_s(job["pid"]), before).tolist()
            rows = [[*one, at] for one, at in zip(answers, offsets.tolist(), strict=True)]
            found.append([rows, *(one / seconds for one in took)])
        return found
    finally:
        await clients.close()


def in_a_process(served: Served, phases: Sequence[tuple[float, float]] | None = None) -> Any:
    """The same, in a process of its own; of each phase also the cores that were taken."""
    job = json.dumps({"port": served.port, "pid": served.pid, "phases": phases})
    command = [sys.executable, __file__, "--client", job]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def figures(phase: list[Any], seconds: float, slo_ms: float) -> dict[str, Any]:
    """What became of the requests of a phase."""
    found, server, client, _ = phase
    latency, status = np.array([one[0] for one in found]), np.array([one[1] for one in found])
    told, at_s = np.array([one[2] for one in found]), np.array([one[3] for one in found])
    accepted, refused = status == 200, status == 503
    p50, p99 = np.percentile(latency[accepted], [50, 99]) if accepted.any() else (np.nan, np.nan)
    return {
        "sent_rps": round(len(found) / seconds, 1),
        "goodput_rps": round(float((accepted & (latency <= slo_ms)).sum() / seconds), 1),
        "answered": int(accepted.sum()),
        "answered_late": int((accepted & (latency > slo_ms)).sum()),
        "refused": int(refused.sum()),
        "refused_without_retry_after": int((refused & ~told).sum()),
        "refused_last_at_s": round(float(at_s[refused].max()), 2) if refused.any() else None,
        "otherwise": int((~accepted & ~refused).sum()),
        "accepted_p50_ms": round(float(p50), 1),
        "accepted_p99_ms": round(float(p99), 1),
        "refused_p50_ms": round(float(np.median(latency[refused])), 1) if refused.any() else None,
        "server_cores": round(server, 2),
        "client_cores": round(client, 2),
    }


def serve(name: str, *words: str) -> Served:
    """``apparate serve`` of the demo's model, which answers."""
    port, apparate = free_port(), Path(sysconfig.get_path("scripts")) / "apparate"
    command = [str(apparate), "serve", str(RUN / "checkpoint"), "--model-name", MODEL, "--no-grpc"]
    command += ["--http-port", str(port), "--batch-sizes", "1,2,4,8", *words]
    served = Served(name, command, port, RUN / f"overload-{name}.log")
    body, headers = body_of()
    lines = [f"POST /v2/models/{MODEL}/infer HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    try:
        served.wait("\r\n".join([*lines, "", ""]).encode() + body, START_S)
    except BaseException:
        served.stop()
        raise
    return served


def beside(served: Served, cores: float, pieces_per_s: float) -> float:
    """The capacity beside a process that takes so much of a processor."""
    job = json.dumps([cores, pieces_per_s])
    with subprocess.Popen([sys.executable, __file__, "--take-processor", job]) as process:
        try:
            return float(in_a_process(served)[0])
        finally:
            process.kill()


def measure(seconds: float) -> dict[str, Any]:
    """Capacity, overload, capacity again and beside other work."""
    free = serve("immediate")
    try:
        first_rps, first_cores = in_a_process(free)
        free.pause()
        slo_ms = round(1e3 * SLO_BATCHES * LARGEST / first_rps, 1)
        bound = serve("slo", "--batching", "slo", "--slo-ms", str(slo_ms))
        try:
            in_a_process(bound, [(CALM * first_rps, SETTLE_S)])
            lasting = [(CALM, CALM_S), (FULL, seconds), (CALM, CALM_S)]
            phases = [(load * first_rps, length) for load, length in lasting]
            found = in_a_process(bound, phases)
        finally:
            bound.stop()
        free.resume()
        told = {
            name: figures(one, length, slo_ms)
            for name, one, (_, length) in zip(NAMES, found, phases, strict=True)
        }
        answering = first_cores * told["overload"]["answered"] / seconds / first_rps
        refusing = found[NAMES.index("overload")][-1] - answering
        pieces_per_s = told["overload"]["refused"] / seconds
        capacity, less = [first_rps], []
        for _ in range(2):
            capacity.append(in_a_process(free)[0])
            less.append(beside(free, refusing, pieces_per_s))
    finally:
        free.stop()
    goodput = told["overload"]["goodput_rps"]
    return {
        "model": "the demo's MiniLM-L6, 128 tokens",
        "capacity_rps": [round(one, 1) for one in capacity],
        "slo_ms": slo_ms,
        "load": FULL,
        "seconds": seconds,
        **told,
        "goodput_share_of_capacity": round(goodput / float(np.mean(capacity)), 3),
        "refusing_cores": round(refusing, 3),
        "capacity_beside_as_much_rps": [round(one, 1) for one in less],
        "goodput_share_of_that": round(goodput / float(np.mean(less)), 3),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        print(json.dumps(asyncio.run(client(json.loads(sys.argv[2])))))
    elif sys.argv[1:2] == ["--take-processor"]:
        take_processor(*json.loads(sys.argv[2]))
    else:
        measured = measure(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
        print(json.dumps(measured, indent=1))
        write_result("overload", measured)
