"""The real client, tritonclient.grpc, against the server: calls, options, and every error."""

import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
from tritonclient.utils import InferenceServerException

from apparate_jax.serve.grpc import GrpcLimits
from tests.serve.grpc.serving import (
    EARLY,
    LOGITS,
    X,
    connected,
    inputs,
    outputs,
    parameters_of,
    serving,
)
from tests.serve.inference.linear import LinearEngine

LIMITS = GrpcLimits(max_message_bytes=20_000)


@pytest.fixture(scope="module")
def running():
    with serving(LIMITS, max_rows=4) as running:
        yield running


@pytest.fixture(scope="module")
def client(running):
    with connected(running) as client:
        yield client


def refused(call, *arguments, **options):
    """Status and text of the error that a call ends with."""
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_health(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("linear") and client.is_model_ready("linear", "3")
    status, message = refused(client.is_model_ready, "linear", "9")
    assert (status, message) == ("NOT_FOUND", "model 'linear' has no version '9': it has '3'")


def test_metadata(client):
    server = client.get_server_metadata(as_json=True)
    assert server["name"] == "apparate-jax" and "classification" in server["extensions"]
    model = client.get_model_metadata("linear", as_json=True)
    assert (model["name"], model["versions"]) == ("linear", ["3"])
    assert model["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": ["-1", "3"]},
        {"name": "ids", "datatype": "INT32", "shape": ["-1", "2"]},
    ]


def test_configuration(client):
    config = client.get_model_config("linear").config
    assert (config.name, config.platform, config.max_batch_size) == ("linear", "jax_jaxpr", 4)
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("x", 11, [3]),
        ("ids", 8, [2]),
    ]
    assert [(o.name, list(o.dims)) for o in config.output] == [("logits", [2]), ("label", [1])]


def test_repository_and_statistics(client, running):
    (entry,) = client.get_model_repository_index().models
    assert (entry.name, entry.version, entry.state) == ("linear", "3", "READY")
    for call, arguments, message in (
        (client.load_model, ("linear",), "models are not loaded while this server runs"),
        (client.unload_model, ("linear",), "models are not unloaded while"),
    ):
        status, text = refused(call, *arguments)
        assert status == "UNIMPLEMENTED" and message in text
    assert not client.get_inference_statistics("linear").model_stats, "its engine keeps no counts"


def test_one_row_with_how_it_was_answered(client):
    result = client.infer("linear", inputs(), request_id="q7")
    np.testing.assert_array_equal(result.as_numpy("logits"), LOGITS[:1], strict=True)
    assert result.as_numpy("label").tolist() == [0]
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("linear", "3", "q7")
    parameters = parameters_of(response)
    assert (parameters["exit"], parameters["exit_depth"]) == ("final", 1.0)
    assert parameters["error"] == pytest.approx(1 / (1 + np.exp(2)), rel=1e-5)


def test_exact_answers_never_leave_early(client):
    early = client.infer("linear", inputs(EARLY)).get_response()
    assert parameters_of(early)["exit"] == "early"
    exact = client.infer("linear", inputs(EARLY), parameters={"accuracy": "exact"}, priority=3)
    assert parameters_of(exact.get_response())["exit"] == "final"


@pytest.mark.parametrize("version", ["", "3"])
def test_several_rows_with_outputs_asked_for(client, version):
    names = ("exit", "label", "exit_depth", "error")
    result = client.infer("linear", inputs(slice(None)), version, outputs=outputs(*names))
    assert [output.name for output in result.get_response().outputs] == list(names)
    assert result.as_numpy("exit").tolist() == [b"final", b"final", b"early"]
    assert result.as_numpy("exit_depth").tolist() == [1.0, 1.0, 0.25]
    assert result.as_numpy("label").tolist() == LOGITS.argmax(axis=1).tolist()
    assert not parameters_of(result.get_response())


def test_classes_instead_of_scores(client):
    asked = outputs("logits", class_count=5)
    found = client.infer("linear", inputs(slice(0, 2)), outputs=asked).as_numpy("logits")
    expected = [[f"{row[i]:f}:{i}".encode() for i in np.argsort(-row)] for row in LOGITS[:2]]
    assert found.tolist() == expected


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_requests(client, coding):
    result = client.infer("linear", inputs(slice(None)), compression_algorithm=coding)
    np.testing.assert_array_equal(result.as_numpy("logits"), LOGITS)


def test_asynchronous_calls(client):
    done = threading.Event()
    found = []

    def on_done(result, error):
        found.append((result, error))
        done.set()

    client.async_infer("linear", inputs(), on_done)
    assert done.wait(20)
    np.testing.assert_array_equal(found[0][0].as_numpy("logits"), LOGITS[:1])


def test_names_that_lead_nowhere(client):
    found = refused(client.infer, "other", inputs())
    assert found == ("NOT_FOUND", "model 'other' is unknown: 'linear' is served here")
    assert refused(client.get_model_config, "other")[0] == "NOT_FOUND"
    assert refused(client.get_model_metadata, "linear", "9")[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": inputs()[:1]}, "input 'ids' is missing"),
        ({"inputs": []}, "input 'x' is missing"),
        ({"outputs": outputs("softmax")}, "output 'softmax' is unknown, expected some of"),
        ({"outputs": outputs("label", class_count=1)}, "classification is asked of output 'label'"),
        ({"parameters": {"accuracy": "high"}}, "accuracy is 'high', expected 'exact'"),
        ({"timeout": -1}, "timeout is -1, expected microseconds"),
        ({"inputs": inputs(x=X[:, :2])}, r"input 'x' has shape [1, 2], expected [n, 3]"),
    ],
)
def test_requests_that_do_not_fit(client, running, changes, message):
    before = running.engine.submitted
    status, text = refused(client.infer, "linear", **{"inputs": inputs(), **changes})
    assert status == "INVALID_ARGUMENT" and message in text
    assert running.engine.submitted == before


def test_more_rows_than_allowed(client):
    many = inputs(slice(None), x=np.zeros((5, 3), np.float32), ids=np.zeros((5, 2), np.int32))
    status, text = refused(client.infer, "linear", many)
    assert status == "INVALID_ARGUMENT" and "holds 5 examples, expected at most 4" in text


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_messages_that_are_too_long(client, coding):
    long = inputs(slice(None), x=np.zeros((10_000, 3), np.float32), ids=np.zeros((10_000, 2)))
    status, _ = refused(client.infer, "linear", long, compression_algorithm=coding)
    assert status == "RESOURCE_EXHAUSTED"
    assert client.infer("linear", inputs()).as_numpy("label").tolist() == [0]


def test_logits_that_are_not_finite(client):
    bad = inputs(x=np.full((1, 3), np.nan, np.float32))
    status, text = refused(client.infer, "linear", bad)
    assert status == "INTERNAL" and "logits are not finite: [nan, nan]" in text


def test_failures_that_nobody_expected_are_logged_not_told(client, caplog):
    status, text = refused(client.infer, "linear", inputs(x=np.full((1, 3), 666, np.float32)))
    assert status == "INTERNAL"
    assert "failed on this request (RuntimeError)" in text and "on fire" not in text
    assert "the device is on fire" in caplog.text


def test_a_full_queue_says_when_to_come_again():
    with serving(engine=LinearEngine(queue_size=2)) as running, connected(running) as client:
        running.engine.gate.clear()
        answered = threading.Event()
        first = client.async_infer("linear", inputs(), lambda result, error: answered.set())
        assert running.engine.taken.wait(20)
        with pytest.raises(InferenceServerException, match="2 requests wait already") as caught:
            client.infer("linear", inputs(slice(0, 3)))
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        running.engine.gate.set()
        assert answered.wait(20)
        del first
        pushback = raw_trailers(running)
    assert (running.engine.submitted, running.engine.answered) == (3, 1)
    assert pushback == [("grpc-retry-pushback-ms", "1000")]


def raw_trailers(running):
    """What a plain gRPC client is told besides the status of a full queue."""
    message = tritongrpc.service_pb2.ModelInferRequest(model_name="linear")
    for tensor in inputs(slice(0, 3)):
        message.inputs.append(tensor._get_tensor())
        message.raw_input_contents.append(tensor._get_content())
    running.engine.queue_size = 0
    with grpc.insecure_channel(running.address) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda m: m.SerializeToString(),
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=20)
    return [tuple(entry) for entry in caught.value.trailing_metadata()]


def test_timeouts_and_deadlines_withdraw_what_has_not_begun():
    with serving() as running, connected(running) as client:
        running.engine.gate.clear()
        status, text = refused(client.infer, "linear", inputs(slice(0, 3)), timeout=20_000)
        assert (status, text) == ("DEADLINE_EXCEEDED", "no answer within the 0.02 s of timeout")
        status, _ = refused(client.infer, "linear", inputs(slice(0, 3)), client_timeout=0.05)
        assert status == "DEADLINE_EXCEEDED"
        while not all(future.cancelled() for future in running.engine.submissions[3:]):
            assert client.is_server_live()
        running.engine.gate.set()
        assert client.infer("linear", inputs()).as_numpy("label").tolist() == [0]
    assert (running.engine.submitted, running.engine.answered) == (7, 1)


def test_the_earlier_of_timeout_and_deadline_reaches_the_engine(client, running):
    def due_in_s(**options):
        client.infer("linear", inputs(), **options)
        terms = running.engine.terms[-1]
        return terms["deadline_s"] - time.monotonic() if "deadline_s" in terms else None

    assert due_in_s() is None
    assert 5 < due_in_s(client_timeout=10) < 11
    assert 5 < due_in_s(client_timeout=60, timeout=10_000_000) < 11


def test_a_cancelled_call_withdraws_its_request():
    with serving() as running, connected(running) as client:
        running.engine.gate.clear()
        ended = threading.Event()
        errors = []

        def on_done(result, error):
            errors.append(error)
            ended.set()

        answered = threading.Event()
        first = client.async_infer("linear", inputs(), lambda result, error: answered.set())
        assert running.engine.taken.wait(20)
        call = client.async_infer("linear", inputs(), on_done)
        while running.engine.submitted < 2:
            assert client.is_server_live()
        call.cancel()
        assert ended.wait(20) and errors[0].status() == "StatusCode.CANCELLED"
        while not running.engine.submissions[1].cancelled():
            assert client.is_server_live()
        running.engine.gate.set()
        assert answered.wait(20)
        del first
    assert (running.engine.submitted, running.engine.answered) == (2, 1)


def test_an_engine_that_is_not_ready_or_closed():
    with serving() as running, connected(running) as client:
        running.engine.ready = False
        assert client.is_server_live()
        assert not client.is_server_ready() and not client.is_model_ready("linear")
        assert client.get_model_repository_index().models[0].state == "UNAVAILABLE"
        assert refused(client.infer, "linear", inputs())[0] == "UNAVAILABLE"
        running.engine.ready = True
        running.engine.close()
        found = refused(client.infer, "linear", inputs())
        assert found == ("UNAVAILABLE", "the engine is closed")


def test_typed_contents_of_a_plain_client(running):
    pb = tritongrpc.service_pb2
    message = pb.ModelInferRequest(
        model_name="linear",
        inputs=[
            {"name": "x", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": X[0]}},
            {
                "name": "ids",
                "datatype": "INT8",
                "shape": [1, 2],
                "contents": {"int_contents": [0, 0]},
            },
        ],
    )
    with grpc.insecure_channel(running.address) as channel:
        stub = tritongrpc.service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response = stub.ModelInfer(message, timeout=20)
        found = np.frombuffer(response.raw_output_contents[0], "<f4")
        with pytest.raises(grpc.RpcError) as caught:
            stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(), timeout=20)
    assert found.tolist() == LOGITS[0].tolist()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
