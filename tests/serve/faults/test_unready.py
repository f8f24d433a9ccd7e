"""A server whose engine died, whose compiler is killed, or whose disk is full says so."""

import json

import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
from tritonclient.utils import InferenceServerException

from apparate_jax.serve.compile_process import CompileError, CompileProcess
from apparate_jax.serve.state_store import StateStore
from tests.serve.faults.broken import BODY
from tests.serve.faults.serving import (
    X,
    check_good,
    connect,
    exchange,
    infer,
    own_logits,
    post,
    response,
    serving,
    tensor,
)
from tests.serve.repository import made


class Ended(BaseException):
    """What ends a thread, as SystemExit would."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return made.save(tmp_path_factory.mktemp("unready") / "one")


def ready(address):
    with connect(address) as sock:
        sock.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        return response(sock)[0]


@pytest.mark.parametrize("thread", ["dispatch", "release"])
def test_an_engine_that_died_is_not_ready_and_a_load_replaces_it(place, monkeypatch, thread):
    def die(batch):
        raise Ended

    with serving(place) as running:
        check_good(running)
        assert ready(running.http) == 200
        if thread == "dispatch":
            monkeypatch.setattr(running.engine, "_dispatch", die)
        else:
            monkeypatch.setattr(running.engine._release, "ramps", die)
        for _ in range(2):  # the request that it dies of, and one after
            status, text = exchange(running.http, post(BODY))
            assert (status, "Traceback" in text) == (503, False), text
        assert ready(running.http) == 503
        with tritongrpc.InferenceServerClient(running.grpc) as client:
            given = tritongrpc.InferInput("x", list(X.shape), "FP32")
            given.set_data_from_numpy(X)
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                client.infer("one", [given], client_timeout=10)
            assert not client.is_server_ready()
        running.repository.load("one")
        assert ready(running.http) == 200
        status, text = exchange(running.http, post(infer(tensor())))
        assert status == 200, text
        logits = json.loads(text)["outputs"][0]["data"]
        np.testing.assert_allclose(logits, own_logits(), rtol=1e-4)


def test_a_compiler_that_is_killed_gives_an_error_and_the_server_goes_on(place):
    with serving(place) as running:
        with CompileProcess() as child:
            child._begin()
            child._process.kill()
            with pytest.raises(CompileError, match="gave no program"):
                running.deployment.service.programs.executables.get(
                    lambda x: [x + 1], [X], child=child
                )
        check_good(running)


def test_a_full_disk_does_not_stop_answers(place, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    with serving(place, state_dir=tmp_path) as running:
        monkeypatch.setattr("pathlib.Path.write_bytes", full)
        running.deployment._feedback._store._every_s = 0.0
        for _ in range(5):
            check_good(running)
        assert isinstance(running.deployment._feedback._store, StateStore)
    assert caplog.text.count("cannot be saved") == 1
    assert not list(tmp_path.iterdir()), "nothing half written is left"
