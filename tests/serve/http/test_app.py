"""Inference over a real server, and every error's status."""

import gzip
import json
import zlib

import httpx
import numpy as np
import pytest
from benchmarks._one_model import OneModel

from apparate_jax.core import InputSpec, Model
from apparate_jax.errors import ConfigError
from apparate_jax.serve.http import HttpLimits, build_app
from tests.serve.http.serving import (
    IDS,
    LOGITS,
    URL,
    X,
    binary_request,
    raw_post,
    read_response,
    request_of,
    serving,
)
from tests.serve.inference.linear import LinearEngine

LIMITS = HttpLimits(max_body_bytes=20_000)


@pytest.fixture(scope="module")
def running():
    with serving(LIMITS, max_rows=4) as running:
        yield running


@pytest.fixture(scope="module")
def client(running):
    with httpx.Client(base_url=running.url, timeout=20) as client:
        yield client


def outputs_of(response):
    """Arrays of a response by name, and its JSON part."""
    assert response.status_code == 200, response.text
    length = response.headers.get("Inference-Header-Content-Length")
    body, at = response.content, int(length or 0)
    head = json.loads(body[:at] if length else body)
    arrays = {}
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = np.array(output["data"])
        else:
            dtype = {"FP32": "<f4", "INT64": "<i8"}[output["datatype"]]
            values = np.frombuffer(body[at : at + size], dtype)
            at += size
        arrays[output["name"]] = values.reshape(output["shape"])
    assert length is None or at == len(body)
    return arrays, head


def test_classes_instead_of_scores(client):
    asked = [{"name": "logits", "parameters": {"classification": 1}}, {"name": "label"}]
    arrays, _ = outputs_of(client.post(URL, json=request_of(slice(0, 2), outputs=asked)))
    best = LOGITS[:2].argmax(axis=1)
    expected = [[f"{LOGITS[row, index]:f}:{index}"] for row, index in enumerate(best)]
    assert arrays["logits"].tolist() == expected


def test_one_row_with_how_it_was_answered(client):
    arrays, head = outputs_of(client.post(URL, json=request_of(id="q7")))
    np.testing.assert_array_equal(arrays["logits"], LOGITS[:1])
    assert arrays["label"].tolist() == [0]
    assert (head["model_name"], head["model_version"], head["id"]) == ("linear", "3", "q7")
    parameters = head["parameters"]
    assert (parameters["exit"], parameters["exit_depth"]) == ("final", 1.0)
    assert parameters["error"] == pytest.approx(1 / (1 + np.exp(2)), rel=1e-5)


def test_exact_answers_never_leave_early(client):
    rows = slice(2, 3)
    _, early = outputs_of(client.post(URL, json=request_of(rows)))
    assert (early["parameters"]["exit"], early["parameters"]["exit_depth"]) == ("early", 0.25)
    _, exact = outputs_of(client.post(URL, json=request_of(rows, parameters={"accuracy": "exact"})))
    assert exact["parameters"]["exit"] == "final"


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("path", [URL, "/v2/models/linear/versions/3/infer"])
def test_several_rows_with_outputs_asked_for(client, nested, path):
    names = ["exit", "label", "exit_depth", "error"]
    request = request_of(slice(None), nested, outputs=[{"name": name} for name in names])
    arrays, head = outputs_of(client.post(path, json=request))
    assert [output["name"] for output in head["outputs"]] == names
    datatypes = [output["datatype"] for output in head["outputs"]]
    assert datatypes == ["BYTES", "INT64", "FP32", "FP32"]
    assert arrays["exit"].tolist() == ["final", "final", "early"]
    assert arrays["exit_depth"].tolist() == [1.0, 1.0, 0.25]
    assert arrays["label"].tolist() == LOGITS.argmax(axis=1).tolist()
    assert "parameters" not in head
    assert "id" not in head


@pytest.mark.parametrize("everything", [True, False])
def test_binary_inputs_and_outputs(client, everything):
    asked = [{"name": "label"}, {"name": "logits", "parameters": {"binary_data": True}}]
    fields = {"parameters": {"binary_data_output": True}} if everything else {"outputs": asked}
    body, headers = binary_request(slice(None), **fields)
    response = client.post(URL, content=body, headers=headers)
    arrays, head = outputs_of(response)
    assert response.headers["Content-Type"] == "application/octet-stream"
    np.testing.assert_array_equal(arrays["logits"], LOGITS, strict=True)
    assert arrays["label"].tolist() == LOGITS.argmax(axis=1).tolist()
    assert ("data" in head["outputs"][0]) is not everything


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_requests(client, coding, compress):
    body, headers = binary_request(slice(None))
    headers["Content-Encoding"] = coding
    arrays, _ = outputs_of(client.post(URL, content=compress(body), headers=headers))
    np.testing.assert_array_equal(arrays["logits"], LOGITS)


def test_a_body_in_chunks(client):
    body = json.dumps(request_of()).encode()
    arrays, _ = outputs_of(client.post(URL, content=iter([body[:50], body[50:]])))
    np.testing.assert_array_equal(arrays["logits"], LOGITS[:1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": []}, "'inputs' is [], expected"),
        ({"id": 3}, "id is 3, expected a string"),
        ({"inputs": request_of()["inputs"][:1]}, "input 'ids' is missing"),
        ({"outputs": [{"name": "softmax"}]}, "output 'softmax' is unknown, expected some of"),
        (
            {"outputs": [{"name": "label", "parameters": {"classification": 1}}]},
            "classification is asked of output 'label', expected 'logits'",
        ),
        ({"parameters": {"accuracy": "high"}}, "accuracy is 'high', expected 'exact'"),
        ({"parameters": {"priority": -1}}, "priority is -1, expected a level"),
        ({"parameters": {"timeout": -1}}, "timeout is -1, expected microseconds"),
        ({"parameters": {"timeout": 0.5}}, "timeout is 0.5, expected microseconds"),
        ({"parameters": {"timeout": True}}, "timeout is True, expected microseconds"),
    ],
)
def test_requests_that_do_not_fit(client, running, changes, message):
    before = running.engine.submitted
    response = client.post(URL, json={**request_of(), **changes})
    assert response.status_code == 400
    assert message in response.json()["error"]
    assert running.engine.submitted == before


def test_more_rows_than_allowed(client):
    inputs = [
        {"name": "x", "shape": [5, 3], "datatype": "FP32", "data": [0.0] * 15},
        {"name": "ids", "shape": [5, 2], "datatype": "INT32", "data": [0] * 10},
    ]
    response = client.post(URL, json={"inputs": inputs})
    assert response.status_code == 400
    assert "holds 5 examples, expected at most 4" in response.json()["error"]


@pytest.mark.parametrize("value", ["-1", "5x", "9" * 19, "0", "99999"])
def test_json_lengths_that_lie(client, value):
    body, headers = binary_request()
    headers["Inference-Header-Content-Length"] = value
    response = client.post(URL, content=body, headers=headers)
    assert response.status_code == 400
    assert "Inference-Header-Content-Length is" in response.json()["error"]


def test_bodies_that_are_too_large(client):
    def chunks():
        for _ in range(30):
            yield bytes(1000)

    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < LIMITS.max_body_bytes
    for sent in (
        {"content": bytes(LIMITS.max_body_bytes + 1)},
        {"content": chunks()},
        {"content": bomb, "headers": {"Content-Encoding": "gzip"}},
    ):
        response = client.post(URL, **sent)
        assert response.status_code == 413
        assert "larger than 20000 bytes" in response.json()["error"]


@pytest.mark.parametrize(
    ("coding", "body", "status", "message"),
    [
        ("br", b"{}", 415, "Content-Encoding is 'br', expected gzip, deflate or none"),
        ("gzip", b"{}", 400, "the body is not gzip data"),
        ("gzip", gzip.compress(b"{}")[:-3], 400, "gzip data is cut off"),
        ("deflate", zlib.compress(b"{}") + b"{}", 400, "2 bytes follow the body's deflate data"),
    ],
    # Not the bytes themselves: gzip's hold the time, and every worker must collect the same names.
    ids=["unknown coding", "no gzip", "cut off", "bytes follow"],
)
def test_codings_that_lie(client, coding, body, status, message):
    response = client.post(URL, content=body, headers={"Content-Encoding": coding})
    assert response.status_code == status
    assert message in response.json()["error"]


def test_a_content_length_that_is_too_short(running):
    with running.connect() as sock:
        sock.sendall(raw_post(json.dumps(request_of()).encode()[:-1]))
        status, error = read_response(sock)
    assert status == 400
    assert "the request is not JSON" in error["error"]


def test_a_content_length_that_is_too_long():
    body = json.dumps(request_of()).encode()
    with serving(HttpLimits(body_timeout_s=0.1)) as running, running.connect() as sock:
        sock.sendall(raw_post(body, len(body) + 1))
        status, error = read_response(sock)
        assert sock.recv(1) == b""
    assert status == 408
    assert "the body was not complete after 0.1 s" in error["error"]


def test_a_client_that_goes_away_in_its_request(running, client):
    before = running.engine.submitted
    with running.connect() as sock:
        sock.sendall(raw_post(b'{"inputs": [', 500))
    outputs_of(client.post(URL, json=request_of()))
    assert running.engine.submitted == before + 1


def test_requests_that_follow_an_error_on_the_same_connection(running):
    good = json.dumps(request_of()).encode()
    with running.connect() as sock:
        sock.sendall(raw_post(b"{") + raw_post(good))
        assert read_response(sock)[0] == 400
    with running.connect() as sock:
        for body, status in ((bytes(30_000), 413), (good, 200)):
            sock.sendall(raw_post(body))
            assert read_response(sock)[0] == status


def test_logits_that_are_not_finite(client):
    request = request_of()
    request["inputs"][0]["data"] = [[float("nan"), 0.0, 0.0]]
    response = client.post(URL, content=json.dumps(request))
    assert response.status_code == 500
    assert "logits are not finite: [nan, nan]" in response.json()["error"]


def test_failures_that_nobody_expected_are_logged_not_told(client, caplog):
    request = request_of()
    request["inputs"][0]["data"] = [[666.0, 0.0, 0.0]]
    response = client.post(URL, json=request)
    assert response.status_code == 500
    assert "failed on this request (RuntimeError)" in response.json()["error"]
    assert "on fire" not in response.text
    assert "the device is on fire" in caplog.text


def test_a_full_queue_takes_no_part_of_a_request():
    with serving(engine=LinearEngine(queue_size=2)) as running:
        running.engine.gate.clear()
        with httpx.Client(base_url=running.url, timeout=20) as client, running.connect() as sock:
            sock.sendall(raw_post(json.dumps(request_of()).encode()))
            assert running.engine.taken.wait(20)
            response = client.post(URL, json=request_of(slice(0, 3)))
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "1"
            assert "2 requests wait already" in response.json()["error"]
            running.engine.gate.set()
            assert read_response(sock)[0] == 200
    # The two rows that had been taken before the third was refused were withdrawn.
    assert (running.engine.submitted, running.engine.answered) == (3, 1)


def test_a_timeout_withdraws_what_has_not_begun():
    with serving() as running:
        running.engine.gate.clear()
        with httpx.Client(base_url=running.url, timeout=20) as client:
            request = request_of(slice(0, 3), parameters={"timeout": 20_000})
            response = client.post(URL, json=request)
            assert response.status_code == 504
            assert response.json() == {"error": "no answer within the 0.02 s of timeout"}
            running.engine.gate.set()
            assert client.post(URL, json=request_of()).status_code == 200
    assert (running.engine.submitted, running.engine.answered) == (4, 1)


def test_a_client_that_goes_away_takes_its_request_along():
    with serving() as running, httpx.Client(base_url=running.url, timeout=20) as client:
        running.engine.gate.clear()
        with running.connect() as first:
            first.sendall(raw_post(json.dumps(request_of()).encode()))
            assert running.engine.taken.wait(20)
            with running.connect() as second:
                second.sendall(raw_post(json.dumps(request_of()).encode()))
                while running.engine.submitted < 2:
                    assert client.get("/v2/health/live").status_code == 200
            while not running.engine.submissions[1].cancelled():
                assert client.get("/v2/health/live").status_code == 200
            running.engine.gate.set()
            assert read_response(first)[0] == 200
    assert (running.engine.submitted, running.engine.answered) == (2, 1)


def test_an_engine_that_is_not_ready_or_closed():
    with serving() as running, httpx.Client(base_url=running.url, timeout=20) as client:
        running.engine.ready = False
        assert client.get("/v2/health/live").status_code == 200
        for path in ("/v2/health/ready", "/v2/models/linear/ready"):
            response = client.get(path)
            assert (response.status_code, response.json()["ready"]) == (503, False)
        response = client.post(URL, json=request_of())
        assert response.status_code == 503
        assert "model 'linear' is not ready" in response.json()["error"]
        running.engine.ready = True
        running.engine.close()
        response = client.post(URL, json=request_of())
        assert (response.status_code, response.json()) == (503, {"error": "the engine is closed"})


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_long_responses_are_compressed_for_those_who_accept(coding):
    with serving(HttpLimits(compress_from_bytes=100)) as running:
        with httpx.Client(base_url=running.url, timeout=20) as client:
            body, headers = binary_request(slice(None), parameters={"binary_data_output": True})
            headers["Accept-Encoding"] = coding
            response = client.post(URL, content=body, headers=headers)
            assert response.headers["Content-Encoding"] == coding
            np.testing.assert_array_equal(outputs_of(response)[0]["logits"], LOGITS)
            headers["Accept-Encoding"] = "identity"
            response = client.post(URL, content=body, headers=headers)
            assert "Content-Encoding" not in response.headers
            np.testing.assert_array_equal(outputs_of(response)[0]["logits"], LOGITS)


def test_what_cannot_be_served_is_refused_at_the_start():
    engine = LinearEngine()
    try:
        for name in ("", "a/b"):
            with pytest.raises(ConfigError, match=r"the model name is .*, expected a name without"):
                build_app(OneModel(engine, name=name))
        with pytest.raises(ConfigError, match="the model version is ''"):
            OneModel(engine, name="m", version="")
        engine.model = Model("bare", lambda params: params, {})
        with pytest.raises(ConfigError, match="the inputs of 'bare' are not described"):
            build_app(OneModel(engine, name="m"))
        engine.model = Model("c", lambda p: p, {}, (InputSpec("z", (1,), "complex64"),))
        with pytest.raises(ConfigError, match="'complex64' cannot be served"):
            build_app(OneModel(engine, name="m"))
    finally:
        engine.close()


def test_the_rows_used_here_leave_at_both_exits():
    assert X.shape == (3, 3) and IDS.shape == (3, 2)
    spread = np.abs(LOGITS[:, 0] - LOGITS[:, 1])
    assert (spread > np.log(9)).tolist() == [False, False, True]
