"""How many requests per second the server takes, the model being nothing: closed loop of clients.

A real engine with a model of two small products and no ramps, so that all that costs is the server:
protocol, queue, batches, JAX's dispatch, answers. HTTP is loaded by ``wrk`` (16 connections; from
the system's package of that name), gRPC by a client of grpc.aio in a process of its own with 16
calls under way. Targets: 3,000 requests/s over HTTP, 2,000 over gRPC, on two cores that the client
shares. Writes results/empty_model.json.
"""

import asyncio
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from _common import write_result
from _frontends import serving

from apparate_jax.core import InputSpec
from apparate_jax.graph import trace
from apparate_jax.models import from_function
from apparate_jax.serve.engine import Engine
from apparate_jax.serve.programs import Programs

CLIENTS = 16
SECONDS = 6
ROUNDS = 5
WIDTH = 8


def empty() -> Programs:
    """A model that does next to nothing."""
    model = from_function(
        lambda p, x: jnp.tanh(x @ p[0]) @ p[1],
        [np.eye(WIDTH, dtype=np.float32), np.eye(WIDTH, 2, dtype=np.float32)],
        inputs=[InputSpec("x", (WIDTH,), "float32")],
        name="empty",
    )
    program = trace(model.apply, model.params, *model.example_inputs(1))
    made = Programs(program, model, batch_sizes=(1, 2, 4, 8, 16))
    made.warm_atomic()
    made.warm_merged(())
    return made


def request() -> tuple[bytes, int]:
    """A binary request of one example, and the length of its JSON."""
    x = np.ones((1, WIDTH), np.float32)
    head = {
        "inputs": [
            {
                "name": "x",
                "shape": [1, WIDTH],
                "datatype": "FP32",
                "parameters": {"binary_data_size": x.nbytes},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    return text + x.tobytes(), len(text)


def load_http(url: str) -> dict[str, float]:
    """What wrk says."""
    body, length = request()
    escaped = "".join(f"\\{byte:03d}" for byte in body)
    script = (
        f'wrk.method = "POST"\nwrk.body = "{escaped}"\n'
        f'wrk.headers["Inference-Header-Content-Length"] = "{length}"\n'
        'wrk.headers["Content-Type"] = "application/octet-stream"\n'
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        words = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}s", "--latency", "-s", file.name]
        told = subprocess.run(
            [*words, f"{url}/v2/models/empty/infer"], check=True, capture_output=True, text=True
        ).stdout
    if "Non-2xx" in told:
        raise RuntimeError(told)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", told)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", told)
    assert rate and median and tail, told
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    return {
        "rps": float(rate[1]),
        "p50_ms": float(median[1]) * unit[median[2]],
        "p99_ms": float(tail[1]) * unit[tail[2]],
    }


def grpc_client(address: str, results: Any) -> None:
    """Calls in a closed loop, in a process of its own."""
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    message = service_pb2.ModelInferRequest(model_name="empty")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
    assert tensor.name == "x"
    message.raw_input_contents.append(np.ones((1, WIDTH), np.float32).tobytes())
    times: list[float] = []

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            end = time.monotonic() + SECONDS

            async def loop() -> None:
                while (begun := time.monotonic()) < end:
                    await stub.ModelInfer(message)
                    times.append(time.monotonic() - begun)

            await asyncio.gather(*(loop() for _ in range(CLIENTS)))

    asyncio.run(run())
    p50, p99 = np.percentile(np.asarray(times) * 1e3, [50, 99])
    results.put({"rps": len(times) / SECONDS, "p50_ms": float(p50), "p99_ms": float(p99)})


def load_grpc(address: str) -> dict[str, float]:
    """What the client's process says."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=grpc_client, args=(address, results))
    process.start()
    found: dict[str, float] = results.get(timeout=SECONDS + 60)
    process.join()
    return found


def main() -> None:
    """Load both, in turns."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: it is a package of most systems (apt install wrk)")
    rounds: dict[str, list[dict[str, float]]] = {"http": [], "grpc": []}
    with Engine(empty()) as engine, serving(engine, "empty") as (url, address):
        load_http(url)
        load_grpc(address)
        for _ in range(ROUNDS):
            rounds["http"].append(load_http(url))
            rounds["grpc"].append(load_grpc(address))
            print({name: found[-1] for name, found in rounds.items()}, flush=True)
    medians = {
        name: {key: round(float(np.median([one[key] for one in found])), 2) for key in found[0]}
        for name, found in rounds.items()
    }
    print(medians)
    write_result(
        "empty_model",
        {
            "clients": CLIENTS,
            "seconds": SECONDS,
            "medians": medians,
            "rounds": rounds,
            "client": "wrk and grpc.aio, on the server's own cores",
        },
    )


if __name__ == "__main__":
    main()
