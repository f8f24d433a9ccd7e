"""The real client's asyncio form, tritonclient.grpc.aio: calls, streams, cancellation."""

import asyncio

import numpy as np
import pytest
import tritonclient.grpc.aio as tritonaio
from tritonclient.utils import InferenceServerException

from tests.serve.grpc.serving import EARLY, LOGITS, inputs, outputs, parameters_of, serving


@pytest.fixture(scope="module")
def running():
    with serving() as running:
        yield running


def with_client(running, use):
    """Run ``use(client)`` on a loop of its own."""

    async def main():
        async with tritonaio.InferenceServerClient(running.address) as client:
            return await use(client)

    return asyncio.run(main())


def test_many_requests_at_once(running):
    async def use(client):
        assert await client.is_model_ready("linear")
        calls = [client.infer("linear", inputs(slice(i % 3, i % 3 + 1))) for i in range(30)]
        return await asyncio.gather(*calls)

    for number, result in enumerate(with_client(running, use)):
        np.testing.assert_array_equal(result.as_numpy("logits")[0], LOGITS[number % 3])


def test_a_stream(running):
    async def use(client):
        async def requests():
            for name, rows in (("a", EARLY), ("b", slice(0, 1))):
                yield {
                    "model_name": "linear",
                    "inputs": inputs(rows),
                    "outputs": outputs("label"),
                    "request_id": name,
                }

        found = []
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            response = result.get_response()
            found.append((response.id, parameters_of(response)["provisional"]))
        return found

    assert sorted(with_client(running, use)) == [("a", False), ("a", True), ("b", False)]


def test_a_deadline_and_a_cancelled_call():
    with serving() as running:
        running.engine.gate.clear()

        async def use(client):
            with pytest.raises(InferenceServerException) as caught:
                await client.infer("linear", inputs(), client_timeout=0.05)
            assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
            call = asyncio.ensure_future(client.infer("linear", inputs()))
            while running.engine.submitted < 2:
                assert await client.is_server_live()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            while not running.engine.submissions[1].cancelled():
                assert await client.is_server_live()
            running.engine.gate.set()
            return await client.infer("linear", inputs())

        assert with_client(running, use).as_numpy("label").tolist() == [0]
    assert (running.engine.submitted, running.engine.answered) == (3, 1)
