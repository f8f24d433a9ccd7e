"""The port, health, reflection, compression, and an end that answers what is under way."""

import contextlib
import os
import signal
import socket
import threading

import grpc
import pytest
import tritonclient.grpc as tritongrpc
from benchmarks._one_model import OneModel
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.utils import InferenceServerException

from apparate_jax.errors import ConfigError
from apparate_jax.serve.grpc import GrpcLimits, GrpcServer
from apparate_jax.serve.http import HttpServer, build_app
from apparate_jax.serve.listen import open_socket
from apparate_jax.serve.running import run_frontends
from tests.serve.grpc.serving import EARLY, LOGITS, connected, inputs, serving
from tests.serve.inference.linear import LinearEngine

SERVICE = "inference.GRPCInferenceService"
SERVING, NOT_SERVING = 1, 2


@pytest.fixture(scope="module")
def running():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def channel(running):
    with grpc.insecure_channel(running.address) as channel:
        yield channel


@contextlib.contextmanager
def engine_for_a_moment():
    engine = LinearEngine()
    try:
        yield engine
    finally:
        engine.close()


def test_a_port_in_use_is_refused(running):
    port = int(running.address.split(":")[1])
    with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use: stop what"):
        open_socket("127.0.0.1", port)


def test_a_port_that_another_took_meanwhile_is_refused():
    ready = []
    with engine_for_a_moment() as engine, open_socket("127.0.0.1", 0) as ours:
        port = ours.getsockname()[1]
        with open_socket("127.0.0.1", port) as theirs:
            theirs.listen()
            server = GrpcServer(OneModel(engine, name="m"), ours, on_ready=ready.append)
            with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 was taken by another"):
                server.run()
    assert ready == []


def test_health(channel, running):
    stub = health_pb2_grpc.HealthStub(channel)

    def check(service):
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status

    assert check("") == check(SERVICE) == SERVING
    with pytest.raises(grpc.RpcError, match="service 'other' is unknown") as caught:
        check("other")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    running.engine.ready = False
    assert check("") == check(SERVICE) == NOT_SERVING
    running.engine.ready = True
    assert check("") == SERVING


def test_those_who_watch_hear_of_the_end():
    with serving() as running, grpc.insecure_channel(running.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watched = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
        assert next(watched).status == SERVING
        running.server.stop()
        assert [response.status for response in watched] == [NOT_SERVING]
        running.thread.join(20)
        assert not running.thread.is_alive()


def test_reflection(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest
    asked = [request(list_services=""), request(file_containing_symbol=SERVICE)]
    services, described = stub.ServerReflectionInfo(iter(asked), timeout=20)
    names = {service.name for service in services.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    (raw,) = described.file_descriptor_response.file_descriptor_proto
    file = FileDescriptorProto.FromString(raw)
    assert [service.name for service in file.service] == ["GRPCInferenceService"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_responses(coding):
    with serving(GrpcLimits(compression=coding)) as running, connected(running) as client:
        found = client.infer("linear", inputs(slice(None))).as_numpy("logits")
    assert found.tolist() == LOGITS.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_message_bytes": 0}, "max_message_bytes is 0, expected more than 0"),
        ({"max_message_bytes": 2**31}, r"expected less than 2\*\*31"),
        ({"max_streamed": -1}, "max_streamed is -1"),
        ({"retry_after_s": -1}, "retry_after_s is -1"),
        ({"compression": "br"}, "compression is 'br', expected one of none, gzip, deflate"),
    ],
)
def test_limits_out_of_range(fields, message):
    with pytest.raises(ConfigError, match=message):
        GrpcLimits(**fields)


def test_clients_may_ping_often(running):
    options = tritongrpc.KeepAliveOptions(
        keepalive_time_ms=10_000, keepalive_permit_without_calls=True
    )
    with connected(running, keepalive_options=options) as client:
        assert client.infer("linear", inputs()).as_numpy("label").tolist() == [0]


def test_stopping_answers_what_is_under_way():
    with serving() as running, connected(running) as client:
        running.engine.gate.clear()
        answered = threading.Event()
        found = []

        def on_done(result, error):
            found.append((result, error))
            answered.set()

        call = client.async_infer("linear", inputs(EARLY), on_done)
        assert running.engine.taken.wait(20)
        running.server.stop()
        with pytest.raises(InferenceServerException) as caught:
            while True:
                client.is_server_live()
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        assert "the server is closing: ask another one" in caught.value.message()
        running.engine.gate.set()
        assert answered.wait(20)
        del call
        assert found[0][0].as_numpy("label").tolist() == [1]
        running.thread.join(20)
        assert not running.thread.is_alive()


@pytest.mark.parametrize("given_up", [True, False])
def test_draining_has_an_end_and_who_is_given_up_hears_of_it(given_up):
    with serving(drain_timeout_s=30 if given_up else 0) as running, connected(running) as client:
        running.engine.gate.clear()
        ended, found = threading.Event(), []

        def on_done(result, error):
            found.append(error)
            ended.set()

        call = client.async_infer("linear", inputs(), on_done)
        assert running.engine.taken.wait(20)
        running.server.stop(now=given_up)
        running.thread.join(20)
        assert not running.thread.is_alive()
        assert ended.wait(20)
        del call
        assert found[0].status() == "StatusCode.UNAVAILABLE"
        assert "the server closed before this was answered" in found[0].message()
        assert running.server.unanswered == 1


def test_clients_that_ask_all_the_time_are_refused_as_unavailable():
    found = [[] for _ in range(4)]

    def ask(mine):
        with connected(running) as client:
            while len(mine) < 3:
                try:
                    client.infer("linear", inputs())
                except InferenceServerException as error:
                    mine.append(error.status())

    with serving() as running:
        clients = [threading.Thread(target=ask, args=(mine,)) for mine in found]
        for client in clients:
            client.start()
        assert running.engine.taken.wait(20)
        running.stop()
        for client in clients:
            client.join(20)
        assert running.server.unanswered == 0
    assert found == [["StatusCode.UNAVAILABLE"] * 3] * 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both_frontends_and_not_the_process(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    answers = []
    with engine_for_a_moment() as engine:
        http = HttpServer(build_app(OneModel(engine, name="m")), open_socket("127.0.0.1", 0))
        grpc_ = GrpcServer(OneModel(engine, name="m"), open_socket("127.0.0.1", 0))

        def ask():
            address = grpc_.url.removeprefix("grpc://")
            with tritongrpc.InferenceServerClient(address) as client:
                answers.append(client.infer("m", inputs()).as_numpy("label").tolist())
            with socket.create_connection(tuple(http.url[7:].split(":")), timeout=20) as sock:
                sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                answers.append(sock.recv(12))
            os.kill(os.getpid(), number)

        asking = threading.Thread(target=ask)
        run_frontends([http, grpc_], asking.start)
        asking.join(20)
    assert answers == [[0], b"HTTP/1.1 200"]
    assert {n: signal.getsignal(n) for n in before} == before
