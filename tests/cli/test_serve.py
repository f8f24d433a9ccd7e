"""``apparate serve`` as a process: ready, answers, errors that say what to do, a clean end."""

import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue

import httpx
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
import tritonclient.http as tritonhttp

from apparate_jax.serve.http import open_socket
from tests.cli import tiny
from tests.cli.test_main import ROOT, SCRIPT

X = np.random.default_rng(3).normal(size=(5, tiny.WIDTH)).astype(np.float32)


FREE = ("--http-port", 0, "--grpc-port", 0)


def body(rows=X, **changes):
    given = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.tolist()}
    return {"inputs": [{**given, **changes}]}


@pytest.fixture(scope="module")
def server(trained):
    words = ("serve", trained, *FREE, "--batch-sizes", "1,2,4", "--model-name", "small")
    with subprocess.Popen(
        [str(SCRIPT), *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = []
            lines = (said.append(line) or line for line in process.stderr)
            ready = (line.split()[1] for line in lines if line.startswith("ready: "))
            urls = list(islice(ready, 2))
            assert len(urls) == 2, f"the server ended before it was ready: {said}"
            yield process, *urls
        finally:
            process.kill()


@pytest.fixture(scope="module")
def client(server):
    _, url, _ = server
    with httpx.Client(base_url=url.split("/v2")[0], timeout=60) as made:
        yield made


def test_ready_and_named(server, client):
    assert server[1].endswith("/v2/models/small")
    assert client.get("/v2/health/ready").json() == {"ready": True}
    found = client.get("/v2/models/small").json()
    assert found["name"] == "small" and found["inputs"][0]["name"] == "x"


def test_answers_are_the_models(client):
    model = tiny.mlp()
    expected = np.asarray(model.apply(model.params, X)).argmax(1)

    def ask(row):
        return client.post("/v2/models/small/infer", json=body(X[row : row + 1])).json()

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(ask, range(5)))
    assert [answer["parameters"]["exit"] for answer in answers] == ["final"] * 5
    labels = [
        output["data"][0] for a in answers for output in a["outputs"] if output["name"] == "label"
    ]
    assert labels == expected.tolist()


@pytest.mark.parametrize(
    ("request_body", "message"),
    [
        (body(datatype="INT64", data=[[0] * 6] * 5), "FP32"),
        (body(shape=[5, 7], data=[[0.0] * 7] * 5), "6"),
        (body(name="y"), "'x'"),
        (body(data=[["a"] * 6] * 5), "FP32"),
        ({"inputs": []}, "expected"),
        ({}, "inputs"),
    ],
)
def test_requests_that_do_not_fit(client, request_body, message):
    response = client.post("/v2/models/small/infer", json=request_body)
    assert response.status_code == 400
    assert message in response.json()["error"]


def test_an_input_without_an_answer_is_an_error_and_not_the_end(client):
    whole = json.dumps(body(X[:1])).replace(str(X[0, 0].item()), "NaN")
    response = client.post("/v2/models/small/infer", content=whole)
    assert response.status_code == 500
    assert "logits for this input are not finite" in response.json()["error"]
    assert client.post("/v2/models/small/infer", json=body()).status_code == 200


def test_both_protocols_give_the_same_answers(server):
    _, http, grpc = server
    found = []
    for module, url in ((tritonhttp, http.split("/")[2]), (tritongrpc, grpc.split("/")[2])):
        with module.InferenceServerClient(url) as client:
            assert client.is_model_ready("small")
            given = module.InferInput("x", list(X.shape), "FP32")
            given.set_data_from_numpy(X)
            found.append(client.infer("small", [given]).as_numpy("logits"))
    np.testing.assert_array_equal(found[0], found[1], strict=True)


def test_a_stream_of_the_real_engine_ends_with_final_answers(server):
    with tritongrpc.InferenceServerClient(server[2].split("/")[2]) as client:
        found = SimpleQueue()
        client.start_stream(lambda result, error: found.put((result, error)))
        given = tritongrpc.InferInput("x", [1, X.shape[1]], "FP32")
        given.set_data_from_numpy(X[:1])
        client.async_stream_infer("small", [given], request_id="s")
        result, error = found.get(timeout=30)
        client.stop_stream()
    assert error is None
    assert result.get_response().parameters["exit"].string_param == "final"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_port_is_taken(apparate, trained, server, protocol):
    port = server[1 if protocol == "http" else 2].split(":")[2].split("/")[0]
    done = apparate("serve", trained, *FREE, f"--{protocol}-port", port)
    assert (done.status, done.out) == (1, "")
    assert f"port {port} of 127.0.0.1 is in use: stop what listens there" in done.error
    assert done.err.count("\n") == 1, "said before anything is compiled"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--http-port", 99999), "the port is 99999, expected 0..65535"),
        (("--no-http", "--grpc-port", -1), "the port is -1, expected 0..65535"),
        (("--no-http", "--no-grpc"), "--no-http and --no-grpc leave nothing to serve"),
        ((*FREE, "--host", "no.such.host.invalid"), "host 'no.such.host.invalid' is"),
        ((*FREE, "--batch-sizes", "one"), "batch sizes are 'one'"),
        ((*FREE, "--method", "magic"), "method is 'magic'"),
        ((*FREE, "--accuracy", -1), "accuracy is -1.0"),
        ((*FREE, "--batching", "slo"), "within what? Give slo_ms (--slo-ms)"),
        ((*FREE, "--set", "defaults.acuracy=1"), "did you mean 'accuracy'?"),
        ((*FREE, "--set", "defaults.max_in_flight=0"), "max_in_flight is 0"),
        ((*FREE, "--versions", "3,7"), "has no version '3'"),
        ((*FREE, "--device", 99), "the device is 99"),
        ((*FREE, "--priority-levels", 0), "default_priority is 1 of 0 priority levels"),
    ],
)
def test_settings_out_of_range(apparate, trained, words, message):
    done = apparate("serve", trained, *words)
    assert (done.status, done.out) == (1, "")
    assert message in done.error and done.err.count("\n") == 1


def test_what_fails_gives_the_port_back(apparate, trained):
    with open_socket("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    done = apparate("serve", trained, *FREE, "--http-port", port, "--batch-sizes", str(10**15))
    assert done.status == 1
    open_socket("127.0.0.1", port).close()


def test_sigterm_ends_it_well(server, client):
    process, *_ = server
    assert client.get("/v2/health/live").status_code == 200
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == ""
    assert err.splitlines()[-1] == "stopped; every accepted request was answered"
