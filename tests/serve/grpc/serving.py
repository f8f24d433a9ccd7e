"""A gRPC server on a loopback port for the length of a test, and requests of the real client."""

import contextlib
import threading

import numpy as np
import tritonclient.grpc as tritongrpc
from benchmarks._one_model import OneModel

from apparate_jax.serve.grpc import GrpcServer
from apparate_jax.serve.listen import open_socket
from tests.serve.inference.linear import LinearEngine, logits_of

X = np.array([[1.0, 0.0, 0.0], [0.1, 0.1, 0.0], [0.0, 4.0, 1.0]], np.float32)
IDS = np.array([[0, 0], [0, 3], [1, 2]], np.int32)
LOGITS = logits_of(X, IDS)
EARLY = slice(2, 3)
"""The row whose answer leaves early."""


class Running:
    """A running server: its engine, its address, and how to end it."""

    def __init__(self, engine, limits=None, max_rows=256, **options):
        self.engine = engine
        started = threading.Event()
        self.server = GrpcServer(
            OneModel(engine, name="linear", version="3", max_rows=max_rows),
            open_socket("127.0.0.1", 0),
            limits=limits,
            on_ready=lambda url: started.set(),
            **options,
        )
        self.address = self.server.url.removeprefix("grpc://")
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        assert started.wait(20)

    def stop(self):
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


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


@contextlib.contextmanager
def connected(running, **options):
    """A client of the server."""
    with tritongrpc.InferenceServerClient(running.address, **options) as client:
        yield client


def inputs(rows=slice(0, 1), module=tritongrpc, x=X, ids=IDS):
    """Inputs of a request for some of the rows; ids as INT64, as real clients send them."""
    made = []
    for name, datatype, array in (("x", "FP32", x), ("ids", "INT64", ids.astype(np.int64))):
        tensor = module.InferInput(name, list(array[rows].shape), datatype)
        tensor.set_data_from_numpy(array[rows])
        made.append(tensor)
    return made


def outputs(*names, module=tritongrpc, **options):
    """Outputs that are asked for."""
    return [module.InferRequestedOutput(name, **options) for name in names]


def parameters_of(response):
    """Parameters of a response message as plain values."""
    return {
        key: getattr(value, value.WhichOneof("parameter_choice"))
        for key, value in response.parameters.items()
    }
