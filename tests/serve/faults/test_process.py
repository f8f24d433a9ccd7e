"""``apparate serve`` as a process that is told to end, to reload, or is killed."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc

from apparate_jax.checkpoint import load_checkpoint
from apparate_jax.control import saved
from apparate_jax.control.config import ControlConfig
from apparate_jax.ramps.placement import PlacementConfig
from tests.cli.test_main import ROOT, SCRIPT
from tests.serve.faults.serving import URL, X, connect, exchange, infer, own_logits, post, tensor
from tests.serve.repository import made

ARGS = ("--http-port", "0", "--grpc-port", "0", "--batch-sizes", "1,2", "--ramp-budget", "100")
LABEL = int(own_logits().argmax())
EXACT = infer(tensor(), parameters={"accuracy": "exact"}, outputs=[{"name": "label"}])

REFUSED = str(grpc.StatusCode.UNAVAILABLE)


class Child:
    """A server; what it says on stderr is read all the time."""

    def __init__(self, place, *words):
        command = [str(SCRIPT), "serve", str(place), "--model-name", "one", *ARGS, *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.said, self._lines = [], queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.ports = {}
        while len(self.ports) < 2:
            url = self.wait_for("ready: ").split()[1]
            self.ports[url.split(":")[0]] = url.split("//")[1].split("/")[0]

    def _read(self):
        with self.process.stderr as lines:
            for line in lines:
                self.said.append(line)
                self._lines.put(line)
        self._lines.put("")

    def wait_for(self, words):
        deadline = time.monotonic() + 60
        while line := self._lines.get(timeout=max(0.0, deadline - time.monotonic())):
            if words in line:
                return line
        raise AssertionError(f"it ended without saying {words!r}: {''.join(self.said)}")


@contextlib.contextmanager
def child(place, *words):
    server = Child(place, *words)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.reader.join(10)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return made.save(tmp_path_factory.mktemp("process") / "one")


def over_http(address, seen, going):
    """Ask again and again. A request counts as accepted once the server asks for its body."""
    head = post(EXACT, Expect="100-continue")[: -len(EXACT)]
    while going.is_set():
        accepted = False
        try:
            with connect(address) as sock, sock.makefile("rb") as stream:
                while True:
                    sock.sendall(head)
                    line, accepted = stream.readline(), False
                    if not line:
                        raise ConnectionError
                    assert b"100" in line and stream.readline() == b"\r\n"
                    accepted = True
                    sock.sendall(EXACT)
                    assert b"200" in stream.readline()
                    length = 0
                    while (header := stream.readline().strip().lower()) != b"":
                        name, _, value = header.partition(b":")
                        length = int(value) if name == b"content-length" else length
                    outputs = json.loads(stream.read(length))["outputs"]
                    seen.append("right" if outputs[0]["data"] == [LABEL] else "mixed")
                    accepted = False
        except OSError:
            seen.append("lost" if accepted else "refused")
        except Exception as error:
            seen.append(f"lost: {error!r}")


def over_grpc(address, seen, going):
    """Ask again and again, until well after the server has ended."""
    with tritongrpc.InferenceServerClient(address) as client:
        given = tritongrpc.InferInput("x", list(X.shape), "FP32")
        given.set_data_from_numpy(X)
        while going.is_set():
            try:
                found = client.infer("one", [given], parameters={"accuracy": "exact"})
                right = np.allclose(found.as_numpy("logits")[0], own_logits(), rtol=1e-4)
                seen.append("right" if right else "mixed")
            except tritongrpc.InferenceServerException as error:
                seen.append("refused" if error.status() == REFUSED else f"lost: {error}")


def test_sigterm_under_load_loses_nothing_that_was_accepted(place):
    going, seen = threading.Event(), [[] for _ in range(8)]
    going.set()
    with child(place) as server:
        threads = [
            threading.Thread(
                target=(over_http, over_grpc)[i % 2],
                args=(server.ports[("http", "grpc")[i % 2]], mine, going),
            )
            for i, mine in enumerate(seen)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(30)
        going.clear()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert status == 0, server.said
    assert not any("Traceback" in line for line in server.said), server.said
    for mine in seen:
        assert set(mine) == {"right", "refused"}, set(mine)
        assert mine.count("right") > 5 and mine[-1] == "refused"


def test_a_second_sigint_ends_at_once(place):
    with child(place) as server, connect(server.ports["http"]) as sock:
        sock.sendall(post(EXACT, length=len(EXACT) + 1))  # under way for 30 s
        assert exchange(server.ports["http"], post(EXACT))[0] == 200
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1.0)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 1
        server.reader.join(10)
    assert "stopped; accepted requests that were not answered: 1." in server.said[-1]


def test_what_was_not_answered_in_time_is_said_and_is_the_status(place):
    with child(place, "--drain-timeout-s", "0") as server, connect(server.ports["http"]) as sock:
        sock.sendall(post(EXACT, length=len(EXACT) + 1))
        assert exchange(server.ports["http"], post(EXACT))[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert b" 503 " in sock.recv(1000)
        assert server.process.wait(10) == 1
        server.reader.join(10)
    assert "stopped; accepted requests that were not answered: 1." in server.said[-1]
    assert not any("Traceback" in line for line in server.said), server.said


def test_sighup_takes_up_what_changed_and_keeps_what_is_damaged_out(place, tmp_path):
    served = tmp_path / "one"
    shutil.copytree(place, served)
    with child(served) as server:

        def scores():
            status, text = exchange(server.ports["http"], post(infer(tensor())))
            assert status == 200, text
            return np.array(json.loads(text)["outputs"][0]["data"])

        def replace(times, damage=False):
            fresh = made.save(tmp_path / f"fresh{times}", times)
            if damage:
                largest = max(fresh.rglob("*"), key=lambda f: f.stat().st_size * f.is_file())
                largest.write_bytes(os.urandom(largest.stat().st_size))
            shutil.rmtree(served)
            fresh.rename(served)
            server.process.send_signal(signal.SIGHUP)

        replace(3, damage=True)
        assert "was not reloaded, what it was goes on" in server.wait_for("was not reloaded")
        np.testing.assert_allclose(scores(), own_logits(), rtol=1e-4)
        replace(2)
        server.wait_for("is loaded")
        np.testing.assert_allclose(scores(), 2 * own_logits(), rtol=1e-4)


def counted(place, directory):
    """Answers that the guard has counted, as they are on the disk."""
    checkpoint = load_checkpoint(place)
    key = f"{checkpoint.read_from} {ControlConfig()} {PlacementConfig(ramp_budget=100.0)}"
    return saved.decode((directory / "one-1.npz").read_bytes(), key).guard.answers


def ask_for(server, seconds):
    """Ask all the time; how many were answered."""
    until, answered = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        assert exchange(server.ports["http"], post(EXACT))[0] == 200
        answered += 1
    return answered


@pytest.mark.slow
def test_kill_9_loses_one_save_interval_at_most(place, tmp_path):
    with child(place, "--state-dir", str(tmp_path)) as server:
        asked = [ask_for(server, 5.5)]
        deadline = time.monotonic() + 10
        while not (tmp_path / "one-1.npz").exists() and time.monotonic() < deadline:
            asked.append(ask_for(server, 0.5))
        server.process.kill()
        server.process.wait()
    before = counted(place, tmp_path)
    assert sum(asked) * 0.5 < before <= sum(asked)
    with child(place, "--state-dir", str(tmp_path)) as server:
        after = ask_for(server, 0.3)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert counted(place, tmp_path) == before + after


def test_a_state_that_is_garbage_is_said_and_replaced(place, tmp_path):
    (tmp_path / "one-1.npz").write_bytes(os.urandom(5000))
    with child(place, "--state-dir", str(tmp_path)) as server:
        assert exchange(server.ports["http"], post(EXACT, URL))[0] == 200
        assert any("control starts anew" in line for line in server.said)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert counted(place, tmp_path) == 1
