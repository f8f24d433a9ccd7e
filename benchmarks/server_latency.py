"""Latency that the server adds at half load: from client to client, without the engine's own time.

Behind both frontends is a stub of an engine that takes 5 ms for each example, one after the other;
its answer's first score says how long the request was there, its place in line included. A client
in a process of its own sends binary requests of 150 KB at Poisson times at half of what the engine
takes: over HTTP (aiohttp) and gRPC (grpc.aio), in turns. The floor is a server of grpc.aio's that
hands the request's bytes to the same engine unread, and returns eight. Targets: p50 at most 1 ms,
p99 at most 5.

Writes results/server_latency.json
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from _common import write_result
from _frontends import serving
from _stub_engine import StubEngine

from apparate_jax.core import InputSpec

WIDTH, CLASSES = 37_500, 2
SERVICE_MS, LOAD = 5.0, 0.5
SECONDS, WARM_UP_S, ROUNDS = 8.0, 1.0, 5
NAME = "stub"
Ask = Callable[[], Awaitable[float]]


def stub() -> StubEngine:
    """An engine that takes a fixed time for each example."""
    return StubEngine([InputSpec("x", (WIDTH,), "float32")], CLASSES, SERVICE_MS)


def over_http(url: str, session: Any) -> Ask:
    """A request over HTTP; gives what the engine took, ms."""
    x = np.ones((1, WIDTH), np.float32)
    tensor = {"name": "x", "shape": [1, WIDTH], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": x.nbytes}
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    body, address = head + x.tobytes(), f"{url}/v2/models/{NAME}/infer"

    async def ask() -> float:
        async with session.post(address, data=body, headers=headers) as response:
            given = await response.read()
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {given[:300]!r}")
        return float(np.frombuffer(given[-4 * CLASSES :], np.float32)[0])

    return ask


def over_grpc(channel: Any) -> Ask:
    """The same over gRPC."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    message = service_pb2.ModelInferRequest(model_name=NAME)
    message.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
    message.outputs.add(name="logits")
    message.raw_input_contents.append(np.ones((1, WIDTH), np.float32).tobytes())
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    async def ask() -> float:
        response = await stub.ModelInfer(message)
        return float(np.frombuffer(response.raw_output_contents[0], np.float32)[0])

    return ask


def over_bytes(channel: Any) -> Ask:
    """The same bytes to the floor."""
    call = channel.unary_unary("/floor/Ask")
    body = np.ones((1, WIDTH), np.float32).tobytes()

    async def ask() -> float:
        return float(np.frombuffer(await call(body), np.float32)[0])

    return ask


def floor(ports: Any) -> None:
    """Serve an engine by gRPC's library alone, in a process of its own; tells its port."""
    import grpc

    engine = stub()

    async def answer(body: bytes, context: Any) -> bytes:
        return (await asyncio.wrap_future(engine.submit({}))).scores.tobytes()

    async def run() -> None:
        calls = {"Ask": grpc.unary_unary_rpc_method_handler(answer)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("floor", calls),))
        ports.put(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await server.wait_for_termination()

    asyncio.run(run())


async def open_loop(ask: Ask, seed: int) -> list[float]:
    """Latency less the engine's time, ms, of each request after the warm-up."""
    rate = LOAD * 1e3 / SERVICE_MS
    count = round(rate * (WARM_UP_S + SECONDS))
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
    added: list[float] = []

    async def one(at_s: float) -> None:
        begun_s = time.perf_counter()
        here_ms = await ask()
        if at_s >= WARM_UP_S:
            added.append((time.perf_counter() - begun_s) * 1e3 - here_ms)

    start_s = time.perf_counter() + 0.05
    async with asyncio.TaskGroup() as group:
        for at_s in times.tolist():
            await asyncio.sleep(max(0.0, start_s + at_s - time.perf_counter()))
            group.create_task(one(at_s))
    return added


async def all_of(url: str, address: str, port: int, seed: int) -> dict[str, list[float]]:
    """One round of either protocol and of the floor."""
    import aiohttp
    from grpc.aio import insecure_channel

    async with (
        aiohttp.ClientSession() as session,
        insecure_channel(address) as channel,
        insecure_channel(f"127.0.0.1:{port}") as unread,
    ):
        asks = {
            "http": over_http(url, session),
            "grpc": over_grpc(channel),
            "grpc_floor": over_bytes(unread),
        }
        order = list(asks)[seed % len(asks) :] + list(asks)[: seed % len(asks)]
        return {name: await open_loop(asks[name], seed) for name in order}


def client(url: str, address: str, port: int, seed: int) -> dict[str, list[float]]:
    """A round, in a process of its own."""
    return asyncio.run(all_of(url, address, port, seed))


def main() -> None:
    """Measure both protocols and the floor in turns."""
    rounds: dict[str, list[dict[str, float]]] = {"http": [], "grpc": [], "grpc_floor": []}
    engine, context = stub(), multiprocessing.get_context("spawn")
    ports = context.Queue()
    unread = context.Process(target=floor, args=(ports,), daemon=True)
    unread.start()
    port = ports.get(timeout=60)
    with serving(engine, NAME) as places, context.Pool(1) as pool:
        for seed in range(ROUNDS):
            for name, added in pool.apply(client, (*places, port, seed)).items():
                p50, p99 = np.percentile(added, [50, 99])
                found = {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}
                rounds[name].append(found | {"requests": len(added)})
            print({name: found[-1] for name, found in rounds.items()}, flush=True)
    unread.terminate()
    engine.close()
    medians = {
        name: {key: round(float(np.median([one[key] for one in found])), 3) for key in found[0]}
        for name, found in rounds.items()
    }
    print(medians)
    setup = {"request_bytes": 4 * WIDTH, "service_ms": SERVICE_MS, "load": LOAD}
    write_result("server_latency", {**setup, "medians": medians, "rounds": rounds})


if __name__ == "__main__":
    main()
