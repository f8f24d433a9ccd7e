"""The port, signals, and an end that answers what is under way."""

import json
import os
import signal
import socket
import threading

import pytest
from benchmarks._one_model import OneModel

from apparate_jax.errors import ConfigError
from apparate_jax.serve.http import HttpServer, build_app, open_socket, serve_http
from tests.serve.http.serving import raw_post, read_response, request_of, serving
from tests.serve.inference.linear import LinearEngine


async def never(scope, receive, send):
    raise AssertionError("no request is sent here")


def test_a_port_in_use_is_refused_before_anything_is_ready():
    ready = []
    with serving() as running:
        with pytest.raises(ConfigError, match=rf"port {running.port} of 127.0.0.1 is in use: stop"):
            serve_http(never, port=running.port, on_ready=ready.append)
    assert ready == []


def test_a_port_that_another_took_meanwhile_is_refused():
    with open_socket("127.0.0.1", 0) as ours:
        port = ours.getsockname()[1]
        with open_socket("127.0.0.1", port) as theirs:
            theirs.listen()
            with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use"):
                HttpServer(never, ours).run()


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, r"the port is 70000, expected 0\.\.65535"),
        ("127.0.0.1", -1, "the port is -1"),
        ("no.such.host.invalid", 0, "host 'no.such.host.invalid' is unknown"),
        ("192.0.2.1", 0, r"port 0 of 192\.0\.2\.1 is not on this machine"),
    ],
)
def test_ports_that_cannot_be_taken(host, port, message):
    with pytest.raises(ConfigError, match=message):
        open_socket(host, port)


def test_stopping_answers_what_is_under_way():
    with serving() as running:
        running.engine.gate.clear()
        with running.connect() as idle, running.connect() as busy:
            # An answered request before, so that the server surely knows the idle connection.
            idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_response(idle) == (200, {"live": True})
            busy.sendall(raw_post(json.dumps(request_of()).encode()))
            assert running.engine.taken.wait(20)
            running.server.stop()
            assert idle.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", running.port), timeout=20)
            running.engine.gate.set()
            status, answer = read_response(busy)
            assert (status, answer["parameters"]["exit"]) == (200, "final")
            assert busy.recv(1) == b""
        running.thread.join(20)
        assert not running.thread.is_alive()
        assert running.server.unanswered == 0


def test_draining_has_an_end():
    with serving(drain_timeout_s=0) as running:
        running.engine.gate.clear()
        with running.connect() as busy:
            busy.sendall(raw_post(json.dumps(request_of()).encode()))
            assert running.engine.taken.wait(20)
            running.stop()
            status, answer = read_response(busy)
            assert (status, answer["error"][:40]) == (
                503,
                "the server closed before this was answer",
            )
            assert running.server.unanswered == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_and_not_the_process(number):
    assert threading.current_thread() is threading.main_thread()
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    urls = []

    def on_ready(url):
        urls.append(url)
        os.kill(os.getpid(), number)

    engine = LinearEngine()
    try:
        serve_http(build_app(OneModel(engine, name="m")), port=0, on_ready=on_ready)
    finally:
        engine.close()
    assert urls[0].startswith("http://127.0.0.1:")
    assert {n: signal.getsignal(n) for n in before} == before


def test_ipv6_addresses_have_brackets():
    try:
        sock = open_socket("::1", 0)
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with sock:
        assert HttpServer(never, sock).url == f"http://[::1]:{sock.getsockname()[1]}"
