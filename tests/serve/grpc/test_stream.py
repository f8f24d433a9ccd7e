"""Streams of the real client: provisional and confirmed answers, order, errors, the end."""

import asyncio
import queue
import threading

import grpc
import numpy as np
import pytest

from apparate_jax.serve.grpc import GrpcLimits, inference_pb2
from apparate_jax.serve.grpc.calls import Calls
from apparate_jax.serve.grpc.stream import answer_stream
from apparate_jax.serve.inference import Served
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


@pytest.fixture(scope="module")
def running():
    with serving(GrpcLimits(max_streamed=2)) as running:
        yield running


class Streaming:
    """A client's stream and what came back on it."""

    def __init__(self, client):
        self._client = client
        self._found = queue.Queue()
        client.start_stream(lambda result, error: self._found.put((result, error)))

    def send(self, rows=slice(0, 1), request_id="", model="linear", given=None, **options):
        self._client.async_stream_infer(
            model, given or inputs(rows), request_id=request_id, **options
        )

    def next(self):
        """The next response and its parameters."""
        result, error = self._found.get(timeout=20)
        assert error is None, error
        return result, parameters_of(result.get_response())

    def error(self):
        result, error = self._found.get(timeout=20)
        assert result is None
        return error

    @property
    def empty(self):
        return self._found.empty()


@pytest.fixture
def stream(running):
    with connected(running) as client:
        yield Streaming(client)
        client.stop_stream()


def test_an_early_answer_and_then_the_confirmed_one(stream):
    stream.send(EARLY, "q1", enable_empty_final_response=True)
    early, told = stream.next()
    assert (told["provisional"], told["triton_final_response"]) == (True, False)
    assert (told["exit"], told["exit_depth"]) == ("early", 0.25)
    confirmed, told = stream.next()
    assert (told["provisional"], told["triton_final_response"]) == (False, True)
    assert (told["exit"], told["confirmed"]) == ("final", True)
    for result in (early, confirmed):
        assert result.get_response().id == "q1"
        np.testing.assert_array_equal(result.as_numpy("logits"), LOGITS[EARLY], strict=True)


def test_an_answer_that_the_original_does_not_give(stream):
    stream.send(given=inputs(EARLY, x=X + np.float32([0, 0, 6])))
    early, _ = stream.next()
    corrected, told = stream.next()
    assert told["confirmed"] is False
    assert early.as_numpy("label").tolist() == [1]
    assert corrected.as_numpy("label").tolist() == [0]


@pytest.mark.parametrize(
    ("rows", "options"),
    [(slice(0, 1), {}), (EARLY, {"parameters": {"accuracy": "exact"}})],
    ids=["unsure", "exact"],
)
def test_a_final_answer_is_the_only_one(stream, rows, options):
    stream.send(rows, **options)
    _, told = stream.next()
    assert (told["exit"], told["provisional"], told["triton_final_response"]) == (
        "final",
        False,
        True,
    )
    stream.send(request_id="next")
    assert stream.next()[0].get_response().id == "next"


def test_requests_on_a_stream_interleave(stream, running):
    running.engine.last_gate.clear()
    stream.send(EARLY, "a")
    assert stream.next()[1]["provisional"] is True
    stream.send(slice(0, 1), "b")
    running.engine.last_gate.set()
    found = [stream.next() for _ in range(2)]
    assert sorted(result.get_response().id for result, _ in found) == ["a", "b"]
    assert [told["provisional"] for _, told in found] == [False, False]


def test_many_requests_each_get_their_own_answers(stream):
    count = 40
    for number in range(count):
        row = number % 3
        stream.send(slice(row, row + 1), str(number), outputs=outputs("logits"))
    last = {}
    for _ in range(count + len(range(2, count, 3))):
        result, told = stream.next()
        if told["triton_final_response"]:
            last[int(result.get_response().id)] = result.as_numpy("logits")
    assert sorted(last) == list(range(count))
    for number, logits in last.items():
        np.testing.assert_array_equal(logits[0], LOGITS[number % 3])
    assert stream.empty


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "other"}, "model 'other' is unknown"),
        ({"given": inputs()[:1]}, "input 'ids' is missing"),
        ({"outputs": outputs("softmax")}, "output 'softmax' is unknown"),
        ({"given": inputs(x=np.full((1, 3), np.nan, np.float32))}, "logits are not finite"),
    ],
)
def test_an_error_is_said_in_the_stream_which_goes_on(stream, options, message):
    stream.send(**options)
    assert message in stream.error().message()
    stream.send(request_id="next")
    assert stream.next()[0].get_response().id == "next"


def test_an_original_without_an_answer_is_an_error_after_the_early_one(stream):
    stream.send(given=inputs(EARLY, x=X + np.float32([0, 0, 8])))
    assert stream.next()[1]["provisional"] is True
    assert "the original's logits are not finite" in stream.error().message()


def test_a_cancelled_stream_withdraws_its_requests():
    with serving() as running, connected(running) as client:
        running.engine.gate.clear()
        stream = Streaming(client)
        stream.send()
        assert running.engine.taken.wait(20)
        stream.send()
        while running.engine.submitted < 2:
            assert client.is_server_live()
        client.stop_stream(cancel_requests=True)
        while not running.engine.submissions[1].cancelled():
            assert client.is_server_live()
        running.engine.gate.set()
    assert (running.engine.submitted, running.engine.answered) == (2, 0)


def test_a_server_that_ends_answers_what_it_has_read_and_ends_the_stream():
    with serving() as running, connected(running) as client:
        running.engine.gate.clear()
        stream = Streaming(client)
        stream.send(EARLY, "last")
        assert running.engine.taken.wait(20)
        running.server.stop()
        running.engine.gate.set()
        found = [stream.next() for _ in range(2)]
        assert [told["provisional"] for _, told in found] == [True, False]
        assert "the server is closing" in stream.error().message()
        running.thread.join(20)
        assert not running.thread.is_alive()
        ended = threading.Thread(target=client.stop_stream)
        ended.start()
        ended.join(20)
        assert not ended.is_alive()


def test_requests_of_a_stream_that_are_given_up_are_counted():
    with serving(drain_timeout_s=0) as running, connected(running) as client:
        running.engine.gate.clear()
        stream = Streaming(client)
        for name in "ab":
            stream.send(EARLY, name)
        while running.engine.submitted < 2:
            assert running.engine.taken.wait(20)
        running.server.stop()
        assert "the server closed before this was answered" in stream.error().message()
        running.thread.join(20)
        assert running.server.unanswered == 2


def test_a_response_that_cannot_be_sent_ends_its_request_quietly(running):
    served = Served(running.engine, name="linear")
    message = inference_pb2.ModelInferRequest(model_name="other")
    tried = []

    async def messages():
        for _ in range(5):
            yield message

    async def write(response):
        tried.append(response)
        raise grpc.aio.InternalError("the client has gone")

    asyncio.run(answer_stream(served, messages(), write, Calls(), 2))
    assert len(tried) == 5
