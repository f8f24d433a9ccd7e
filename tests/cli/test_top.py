"""``apparate top``: one state, many, and servers that are not there or something else."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from tests.cli.test_main import ROOT, SCRIPT
from tests.serve.http.watched import served, watched
from tests.serve.telemetry.lively import Hall


@pytest.fixture(scope="module")
def hall():
    return Hall("sentiment", "spam", seconds=60)


@pytest.fixture(scope="module")
def url(hall):
    with watched(hall.statistics, hall.now_s) as url:
        yield url


@contextlib.contextmanager
def answering(answer):
    """A server that gives the same answer to ``/apparate/status``."""
    with served(Starlette(routes=[Route("/apparate/status", answer)])) as url:
        yield url


def test_where_there_is_no_terminal_one_state_is_printed(apparate, url):
    done = apparate("top", url)
    assert done.status == 0 and done.err == ""
    assert "sentiment version 1, ready" in done.out and "spam version 1, ready" in done.out
    assert url in done.out and "\x1b" not in done.out


def test_one_model_in_full(apparate, url):
    done = apparate("top", url, "--once", "--model", "spam")
    assert done.out.count("with early answers") == 1 and "spam version 1" in done.out


def test_json(apparate, url, tmp_path):
    found = apparate("top", f"{url}/", "--json", "-").json
    assert [one["name"] for one in found["models"]] == ["sentiment", "spam"]
    assert len(found["models"][0]["history"]["at_s"]) > 50
    file = tmp_path / "status.json"
    done = apparate("top", url, "--json", file)
    assert json.loads(file.read_text())["server"]["name"] == "apparate-jax"
    assert "sentiment version 1" in done.out


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "expected one like http://localhost:8000"),
        ("ftp://localhost", "expected one like http://localhost:8000"),
    ],
)
def test_urls_that_are_none(apparate, url, message):
    done = apparate("top", url)
    assert done.status == 1 and message in done.error


def test_nobody_there(apparate):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = apparate("top", url)
    assert done.status == 1 and f"no server answers at {url}" in done.error


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda request: JSONResponse({}, 401), "answers 401: it wants an API key"),
        (lambda request: JSONResponse({}, 404), "answers 404: it has no /apparate/status"),
        (lambda request: JSONResponse({}, 500), "answers 500: ask it again later"),
        (lambda request: PlainTextResponse("hello"), "its answer is no JSON"),
        (lambda request: JSONResponse([1]), "its status is something else"),
    ],
)
def test_servers_that_are_something_else(apparate, answer, message):
    with answering(answer) as url:
        done = apparate("top", url)
    assert done.status == 1 and message in done.error


def test_a_port_that_speaks_another_protocol(apparate):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\0\0\0\4\0\0\0\0\0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        done = apparate("top", f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join(20)
    assert done.status == 1 and "is it the port of gRPC?" in done.error


def test_the_key_is_sent(apparate, hall):
    seen = []

    def answer(request):
        seen.append(request.headers.get("x-api-key"))
        return JSONResponse({}, 401)

    with answering(answer) as url, pytest.MonkeyPatch.context() as patch:
        apparate("top", url, "--api-key", "one")
        patch.setenv("APPARATE_API_KEY", "other")
        apparate("top", url)
    assert seen == ["one", "other"]


def test_options_that_make_no_sense(apparate, url, tmp_path):
    assert "expected at least 0.1" in apparate("top", url, "--interval", "0").error
    missing = apparate("top", "https://localhost:1", "--ca", tmp_path / "none.pem").error
    assert "cannot read certificates" in missing


@pytest.fixture
def terminal(url):
    """``apparate top`` on a terminal of its own: what it shows, and the process."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"}
    with subprocess.Popen(
        [str(SCRIPT), "top", url, "--interval", "0.2"],
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        try:
            yield ours, process
        finally:
            process.kill()
            os.close(ours)


def read_until(ours, pattern, timeout_s=60):
    """What is shown until a pattern has come."""
    deadline, text = time.monotonic() + timeout_s, ""
    while not re.search(pattern, text, re.DOTALL):
        ready, _, _ = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, text
        try:
            text += os.read(ours, 1 << 16).decode(errors="replace")
        except OSError:  # the terminal has closed
            break
    return text


def test_live_on_a_terminal_until_ctrl_c(terminal):
    ours, process = terminal
    text = read_until(ours, "sentiment version 1.*sentiment version 1")  # shown again and again
    assert "\x1b[?1049h" in text, "on a screen of its own"
    process.send_signal(signal.SIGINT)
    rest = read_until(ours, re.escape("\x1b[?1049l"))
    assert process.wait(20) == 0
    assert "Traceback" not in text + rest
