"""Broken requests: each is refused in words that help, and leaves nothing behind."""

import contextlib
import gc
import socket
import struct
import threading
import time

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as tritongrpc

from apparate_jax.serve.grpc import inference_pb2
from apparate_jax.serve.http import connection
from tests.serve.faults.broken import BODY, CASES
from tests.serve.faults.serving import (
    X,
    check_good,
    check_idle,
    connect,
    exchange,
    own_logits,
    post,
    response,
    serving,
)
from tests.serve.repository import made

INFER = "/inference.GRPCInferenceService/ModelInfer"
REPEATED = 200
MARGIN_MIB = 24.0
"""What the process may grow by over all repetitions: a request kept for each would be more."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    path = made.save(tmp_path_factory.mktemp("broken") / "one")
    with serving(path) as found:
        yield found


@pytest.mark.parametrize(
    ("data", "status", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_over_http(running, data, status, words):
    found, text = exchange(running.http, data)
    assert (found, words in text) == (status, True), text[:500]
    assert "Traceback" not in text and ".py" not in text
    check_good(running)


def test_good_requests_then_garbage_on_one_connection(running):
    with connect(running.http) as sock:
        sock.sendall(post(BODY) + b"\x00\xff garbage \r\n\r\n")
        status, text = response(sock)
        assert status == 200 and '"logits"' in text, "what came whole is answered"
        assert sock.recv(1) == b""
    check_good(running)


@pytest.mark.parametrize("cut", [0, 9, 80, -30, None], ids=str)
def test_clients_that_go_away(running, cut):
    """Before, in the head, in the body, and with a whole request under way; also by reset."""
    sent = post(BODY)[:cut] if cut is not None else post(BODY)
    for reset in (False, True):
        with connect(running.http) as sock:
            sock.sendall(sent)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    check_good(running)


@pytest.mark.parametrize("sent", [b"", b"POST ", post(BODY)[:60]], ids=["none", "word", "head"])
def test_heads_that_never_end(running, monkeypatch, sent):
    """Slow writers are cut off, and do not hold up anybody else."""
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.3)
    with connect(running.http) as sock:
        sock.sendall(sent)
        check_good(running)
        if sent:
            status, text = response(sock)
            assert (status, "not complete after 0.3 s" in text) == (408, True)
            assert sock.recv(1) == b""


def test_a_byte_at_a_time(running, monkeypatch):
    """The time is the head's, not that of its last byte; a body's likewise."""
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.4)
    for start in (b"POST /", post(BODY, length=1000)):
        with connect(running.http) as sock:
            sock.sendall(start)
            begun = time.monotonic()
            stop = threading.Event()

            def drip(sock=sock, stop=stop):
                with contextlib.suppress(OSError):
                    while not stop.wait(0.05):
                        sock.sendall(b"a")

            thread = threading.Thread(target=drip)
            thread.start()
            try:
                assert response(sock)[0] == 408
            finally:
                stop.set()
                thread.join(10)
            assert time.monotonic() - begun < 5
    check_good(running)


def message(**fields):
    """A request over gRPC; ``inputs`` are changes of the tensor, one for each."""
    request = inference_pb2.ModelInferRequest(model_name=fields.pop("model_name", "one"))
    for changes in fields.pop("inputs", [{}]):
        given = {"name": "x", "shape": list(X.shape), "datatype": "FP32", **changes}
        request.inputs.add(**given)
    request.raw_input_contents.extend(fields.pop("raw", [X.tobytes()]))
    return request.SerializeToString()


TYPED = {"contents": {"fp32_contents": X.ravel().tolist()}}
INVALID, UNKNOWN = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
MESSAGES = [
    ("fewer raw contents", message(raw=[]), INVALID, "has no contents"),
    ("more raw contents", message(raw=[X.tobytes()] * 2), INVALID, "2 raw_input_contents"),
    ("both contents", message(inputs=[TYPED]), INVALID, "both contents and"),
    ("short raw contents", message(raw=[b"abc"]), INVALID, "3 raw bytes, expected 24"),
    (
        "a shape that overflows",
        message(inputs=[{"shape": [2**62, 2**62]}]),
        INVALID,
        "24 raw bytes",
    ),
    ("a negative dimension", message(inputs=[{"shape": [-1, 6]}]), INVALID, "[-1, 6]"),
    ("no rows", message(inputs=[{"shape": [0, 6]}], raw=[b""]), INVALID, "[0, 6]"),
    ("an unknown datatype", message(inputs=[{"datatype": "FP99"}]), INVALID, "is 'FP99'"),
    ("one name twice", message(inputs=[{}, {}], raw=[X.tobytes()] * 2), INVALID, "there twice"),
    ("no inputs", message(inputs=[], raw=[]), INVALID, "'x' is missing"),
    ("an unknown model", message(model_name="two"), UNKNOWN, "served here are"),
    ("nothing", b"", UNKNOWN, "served here are"),
    ("NaN", message(raw=[(X * np.nan).tobytes()]), grpc.StatusCode.INTERNAL, "not finite"),
    (
        "too large",
        message(raw=[bytes(300_000)]),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "300024 vs. 200000",
    ),
    ("no message", b"\xff" * 40, grpc.StatusCode.UNKNOWN, "Error parsing message"),
]


@pytest.fixture(scope="module")
def call(running):
    """Sends bytes as they are, whatever they are."""
    with grpc.insecure_channel(running.grpc) as channel:
        yield channel.unary_unary(INFER, lambda data: data, lambda data: data)


@pytest.mark.parametrize(
    ("data", "status", "words"), [m[1:] for m in MESSAGES], ids=[m[0] for m in MESSAGES]
)
def test_over_grpc(running, call, data, status, words):
    with pytest.raises(grpc.RpcError) as caught:
        call(data, timeout=10)
    assert (caught.value.code(), words in caught.value.details()) == (status, True), caught.value
    assert "Traceback" not in caught.value.details()
    check_good_grpc(running)


def check_good_grpc(running):
    with tritongrpc.InferenceServerClient(running.grpc) as client:
        given = tritongrpc.InferInput("x", list(X.shape), "FP32")
        given.set_data_from_numpy(X)
        found = client.infer("one", [given], parameters={"accuracy": "exact"}, client_timeout=10)
    np.testing.assert_allclose(found.as_numpy("logits")[0], own_logits(), rtol=1e-4)
    check_idle(running)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 8,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x01\x05\x00\x00\x00\x01",
    ],
    ids=["http", "bytes", "frames", "huge frame"],
)
def test_garbage_on_the_grpc_port(running, data):
    with connect(running.grpc) as sock:
        sock.sendall(data)
        with contextlib.suppress(ConnectionError):
            sock.recv(4096)
    check_good_grpc(running)


def test_calls_and_streams_that_are_broken_off(running, call):
    for _ in range(20):
        call.future(message()).cancel()
    stream = "/inference.GRPCInferenceService/ModelStreamInfer"
    for _ in range(5):
        channel = grpc.insecure_channel(running.grpc)
        going = channel.stream_stream(stream, lambda data: data, lambda data: data)
        replies = going(iter([message()] * 20), timeout=10)
        next(replies)
        channel.close()
    check_good_grpc(running)


def test_memory_does_not_grow_with_broken_requests(running, call):
    """Every case that is cheap, over and over, on both ports."""
    cheap = [case[1] for case in CASES if len(case[1]) < 2000 and case[2] != 408]
    assert len(cheap) > 40

    def repeat(times):
        for _ in range(times):
            for data in cheap:
                exchange(running.http, data)
            for one in MESSAGES[:12]:
                with contextlib.suppress(grpc.RpcError):
                    call(one[1], timeout=10)
        check_idle(running)
        gc.collect()
        return psutil.Process().memory_info().rss / 2**20

    before = repeat(REPEATED // 10)
    after = repeat(REPEATED)
    assert after - before < MARGIN_MIB
