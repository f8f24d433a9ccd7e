"""Raw inputs over both ports: clients can find out that they may send them, and do."""

import threading
from concurrent.futures import Future

import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
import tritonclient.http as tritonhttp
from benchmarks._one_model import OneModel

from apparate_jax.core import Answer
from apparate_jax.serve.grpc import GrpcServer
from apparate_jax.serve.http import HttpServer, build_app
from apparate_jax.serve.listen import open_socket
from apparate_jax.serve.running import run_frontends
from tests.serve.inference.test_raw_inputs import reader


class Engine:
    """Answers at once; the label is the first token."""

    num_classes = 2
    ready = True

    def __init__(self):
        self.model = reader()

    def submit(self, inputs, **_):
        future = Future()
        future.set_result(Answer(int(inputs["input_ids"][0]), np.zeros(2, np.float32), 0.1))
        return future


@pytest.fixture(scope="module")
def addresses():
    models, ready = OneModel(Engine(), name="reader"), threading.Event()
    http = HttpServer(build_app(models), open_socket("127.0.0.1", 0))
    grpc = GrpcServer(models, open_socket("127.0.0.1", 0))
    thread = threading.Thread(target=run_frontends, args=([http, grpc], ready.set))
    thread.start()
    assert ready.wait(20)
    yield {tritonhttp: http.url.split("//")[1], tritongrpc: grpc.url.split("//")[1]}
    for frontend in (http, grpc):
        frontend.stop()
    thread.join(20)


@pytest.mark.parametrize("module", [tritonhttp, tritongrpc])
def test_a_client_finds_the_raw_input_and_sends_it(addresses, module):
    options = {} if module is tritonhttp else {"as_json": True}
    with module.InferenceServerClient(addresses[module]) as client:
        config = client.get_model_config("reader", **options)
        config = config.get("config", config)
        name = config["parameters"]["raw_input"]["string_value"]
        assert name == "text"
        (found,) = [one for one in config["input"] if one.get("optional")]
        assert (found["name"], found["data_type"]) == (name, "TYPE_STRING")
        metadata = client.get_model_metadata("reader", **options)
        assert [one["name"] for one in metadata["inputs"]] == ["input_ids", "attention_mask"]
        given = module.InferInput(name, [2, 1], "BYTES")
        given.set_data_from_numpy(np.array([["good"], ["bad"]], np.object_))
        assert client.infer("reader", [given]).as_numpy("label").tolist() == [2, 1]
