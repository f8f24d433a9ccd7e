"""The real client, tritonclient.http: binary and JSON, compression, classes, both of its forms."""

import asyncio

import numpy as np
import pytest
import tritonclient.http as tritonhttp
import tritonclient.http.aio as tritonaio
from tritonclient.utils import InferenceServerException

from apparate_jax.serve.http import HttpLimits
from tests.serve.http.serving import IDS, LOGITS, X, serving

EARLY = slice(2, 3)


@pytest.fixture(scope="module")
def running():
    # Short responses too, so that what is compressed is compressed here.
    with serving(HttpLimits(compress_from_bytes=1)) as running:
        yield running


@pytest.fixture(scope="module")
def client(running):
    with tritonhttp.InferenceServerClient(f"127.0.0.1:{running.port}", concurrency=4) as client:
        yield client


def inputs(rows=slice(0, 1), binary=True, x=X):
    made = []
    for name, datatype, array in (("x", "FP32", x), ("ids", "INT64", IDS.astype(np.int64))):
        tensor = tritonhttp.InferInput(name, list(array[rows].shape), datatype)
        tensor.set_data_from_numpy(array[rows], binary_data=binary)
        made.append(tensor)
    return made


def outputs(*names, **options):
    return [tritonhttp.InferRequestedOutput(name, **options) for name in names]


def refused(call, *arguments, **options):
    """Status and text of the error that a call ends with."""
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status(), caught.value.message()


def test_what_it_can_learn(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("linear") and client.is_model_ready("linear", "3")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "apparate-jax"
    assert client.get_model_metadata("linear")["versions"] == ["3"]
    assert client.get_model_config("linear")["max_batch_size"] == 256
    assert client.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_binary_and_json(client, binary_in, binary_out):
    asked = outputs("logits", "exit", binary_data=binary_out)
    result = client.infer("linear", inputs(slice(None), binary_in), outputs=asked, request_id="q")
    np.testing.assert_allclose(result.as_numpy("logits"), LOGITS, rtol=1e-6)
    exits = [name if isinstance(name, str) else name.decode() for name in result.as_numpy("exit")]
    assert exits == ["final", "final", "early"]
    assert result.get_response()["id"] == "q"


@pytest.mark.parametrize("there", ["gzip", "deflate", None])
@pytest.mark.parametrize("back", ["gzip", "deflate", None])
def test_compression(client, there, back):
    result = client.infer(
        "linear",
        inputs(slice(None)),
        request_compression_algorithm=there,
        response_compression_algorithm=back,
    )
    np.testing.assert_array_equal(result.as_numpy("logits"), LOGITS, strict=True)
    assert result.as_numpy("label").tolist() == LOGITS.argmax(axis=1).tolist()


@pytest.mark.parametrize("binary", [True, False])
def test_classes_instead_of_scores(client, binary):
    asked = outputs("logits", binary_data=binary, class_count=2)
    found = client.infer("linear", inputs(slice(0, 2)), outputs=asked).as_numpy("logits")
    expected = [[f"{row[i]:f}:{i}" for i in np.argsort(-row)] for row in LOGITS[:2]]
    texts = [[t if isinstance(t, str) else t.decode() for t in row] for row in found]
    assert texts == expected


def test_parameters_and_exact_answers(client):
    early = client.infer("linear", inputs(EARLY)).get_response()["parameters"]
    assert (early["exit"], early["exit_depth"]) == ("early", 0.25)
    exact = client.infer("linear", inputs(EARLY), parameters={"accuracy": "exact"}, priority=1)
    assert exact.get_response()["parameters"]["exit"] == "final"


def test_asynchronous_calls(client):
    calls = [client.async_infer("linear", inputs(slice(i % 3, i % 3 + 1))) for i in range(9)]
    for number, call in enumerate(calls):
        logits = call.get_result(timeout=20).as_numpy("logits")
        np.testing.assert_array_equal(logits[0], LOGITS[number % 3])


def test_errors(client):
    assert refused(client.infer, "other", inputs())[0] == "404"
    status, text = refused(client.infer, "linear", inputs()[:1])
    assert status == "400" and "input 'ids' is missing" in text
    status, text = refused(client.infer, "linear", inputs(), outputs=outputs("softmax"))
    assert status == "400" and "output 'softmax' is unknown" in text
    bad = inputs(x=np.full((1, 3), np.nan, np.float32))
    status, text = refused(client.infer, "linear", bad)
    assert status == "500" and "not finite" in text


def test_a_timeout():
    with serving() as running:
        running.engine.gate.clear()
        with tritonhttp.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
            status, text = refused(client.infer, "linear", inputs(), timeout=20_000)
            assert (status, text) == ("504", "no answer within the 0.02 s of timeout")
            running.engine.gate.set()
            assert client.infer("linear", inputs()).as_numpy("label").tolist() == [0]
    assert (running.engine.submitted, running.engine.answered) == (2, 1)


def test_the_asyncio_form(running):
    async def use():
        url = f"127.0.0.1:{running.port}"
        async with tritonaio.InferenceServerClient(url) as client:
            assert await client.is_model_ready("linear")
            calls = [
                client.infer(
                    "linear",
                    inputs(slice(i % 3, i % 3 + 1)),
                    request_compression_algorithm="gzip",
                    response_compression_algorithm="gzip",
                )
                for i in range(12)
            ]
            with pytest.raises(InferenceServerException, match="model 'other' is unknown"):
                await client.infer("other", inputs())
            return await asyncio.gather(*calls)

    for number, result in enumerate(asyncio.run(use())):
        np.testing.assert_array_equal(result.as_numpy("logits")[0], LOGITS[number % 3])


def test_a_cancelled_call_of_the_asyncio_form_withdraws_its_request():
    with serving() as running:
        running.engine.gate.clear()

        async def use():
            async with tritonaio.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
                call = asyncio.ensure_future(client.infer("linear", inputs()))
                while running.engine.submitted < 1:
                    assert await client.is_server_live()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                while not running.engine.submissions[0].cancelled():
                    assert await client.is_server_live()

        asyncio.run(use())
    assert running.engine.answered == 0
