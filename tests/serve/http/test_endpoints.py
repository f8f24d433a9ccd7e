"""The endpoints that tell of the server and its model, and paths that lead nowhere."""

import httpx
import pytest

from apparate_jax.serve.http import HttpLimits
from tests.serve.http.serving import URL, serving

LIMITS = HttpLimits()


@pytest.fixture(scope="module")
def client():
    with (
        serving(LIMITS, max_rows=4) as running,
        httpx.Client(base_url=running.url, timeout=20) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/linear/ready", {"name": "linear", "ready": True}),
        ("/v2/models/linear/versions/3/ready", {"name": "linear", "ready": True}),
    ],
)
def test_health(client, path, expected):
    response = client.get(path)
    assert (response.status_code, response.json()) == (200, expected)


def test_server_metadata(client):
    info = client.get("/v2").json()
    assert info.keys() == {"name", "version", "extensions"}
    assert info["name"] == "apparate-jax"
    assert "binary_tensor_data" in info["extensions"]


@pytest.mark.parametrize("path", ["/v2/models/linear", "/v2/models/linear/versions/3"])
def test_model_metadata(client, path):
    assert client.get(path).json() == {
        "name": "linear",
        "versions": ["3"],
        "platform": "jax_jaxpr",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "ids", "datatype": "INT32", "shape": [-1, 2]},
        ],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
        ],
    }


@pytest.mark.parametrize("model", ["/v2/models/linear", "/v2/models/linear/versions/3"])
def test_model_configuration(client, model):
    assert client.get(f"{model}/config").json() == {
        "name": "linear",
        "platform": "jax_jaxpr",
        "backend": "apparate",
        "max_batch_size": 4,
        "input": [
            {"name": "x", "data_type": "TYPE_FP32", "dims": [3]},
            {"name": "ids", "data_type": "TYPE_INT32", "dims": [2]},
        ],
        "output": [
            {"name": "logits", "data_type": "TYPE_FP32", "dims": [2]},
            {"name": "label", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}},
        ],
    }


def test_the_index_of_the_repository(client):
    entry = {"name": "linear", "version": "3", "state": "READY", "reason": ""}
    assert client.post("/v2/repository/index", json={}).json() == [entry]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v2/models/other/infer", 404, "model 'other' is unknown: 'linear' is served"),
        ("POST", "/v2/models/linear/versions/9/infer", 404, "no version '9': it has '3'"),
        ("GET", "/v2/models/other", 404, "model 'other' is unknown"),
        ("GET", "/v2/models/linear/versions/9", 404, "no version '9'"),
        ("GET", "/v2/models/other/ready", 404, "model 'other' is unknown"),
        ("GET", "/v3/nothing", 404, "GET /v3/nothing: Not Found; expected an endpoint"),
        ("GET", URL, 405, "Method Not Allowed"),
        ("POST", "/v2", 405, "Method Not Allowed"),
    ],
)
def test_paths_that_lead_nowhere(client, method, path, status, message):
    response = client.request(method, path)
    assert response.status_code == status
    assert message in response.json()["error"]
