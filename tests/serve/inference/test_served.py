"""A served model: one reply, or an early one and then the original's."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from benchmarks._one_model import OneModel

from apparate_jax.errors import NumericsError, RequestError
from apparate_jax.serve.inference import Kind, Refusal, Served, now_s
from apparate_jax.serve.protocol import InferRequest, RequestedOutput
from tests.serve.inference.linear import LinearEngine

SURE, UNSURE, WRONG, LOST = [0.0, 4.0, 1.0], [0.1, 0.1, 0.0], [0.0, 4.0, 7.0], [0.0, 4.0, 9.0]


@pytest.fixture
def engine():
    engine = LinearEngine()
    yield engine
    engine.close()


@pytest.fixture
def served(engine):
    return Served(engine, name="m", version="3")


def request(*rows, outputs=("label",), **parameters):
    inputs = {
        "x": np.array(rows, np.float32),
        "ids": np.array([[1, 2]] * len(rows), np.int32),
    }
    asked = tuple(RequestedOutput(name, True) for name in outputs)
    return InferRequest("id", parameters, inputs, asked, True)


async def all_replies(served, asked):
    return [reply async for reply in served.replies(asked, now_s())]


def test_an_early_answer_is_provisional_and_then_confirmed(served):
    first, second = asyncio.run(all_replies(served, request(SURE)))
    assert first.parameters["exit"] == "early"
    assert (first.parameters["provisional"], first.last) == (True, False)
    assert "confirmed" not in first.parameters
    assert second.parameters["exit"] == "final"
    assert (second.parameters["provisional"], second.last) == (False, True)
    assert second.parameters["confirmed"] is True
    assert first.outputs[0].array.tolist() == second.outputs[0].array.tolist() == [1]


def test_an_answer_that_the_original_does_not_give_is_not_confirmed(served):
    first, second = asyncio.run(all_replies(served, request(WRONG)))
    assert second.parameters["confirmed"] is False
    assert first.outputs[0].array.tolist() == [1]
    assert second.outputs[0].array.tolist() == [0]


@pytest.mark.parametrize(
    "asked", [request(UNSURE), request(SURE, accuracy="exact")], ids=["unsure", "exact"]
)
def test_a_final_answer_is_the_only_one(served, asked):
    (reply,) = asyncio.run(all_replies(served, asked))
    assert reply.parameters["exit"] == "final"
    assert (reply.parameters["provisional"], reply.last) == (False, True)
    assert "confirmed" not in reply.parameters


def test_several_rows_are_provisional_together(served):
    first, second = asyncio.run(all_replies(served, request(UNSURE, SURE, outputs=["exit"])))
    assert first.parameters == {"provisional": True}
    assert first.outputs[0].array.tolist() == [b"final", b"early"]
    assert second.parameters == {"provisional": False, "confirmed": True}
    assert second.outputs[0].array.tolist() == [b"final", b"final"]


def test_the_early_reply_does_not_wait_for_the_other(served, engine):
    async def take():
        engine.last_gate.clear()
        replies = served.replies(request(SURE), now_s())
        first = await anext(replies)
        engine.last_gate.set()
        return first, await anext(replies)

    first, second = asyncio.run(take())
    assert (first.last, second.last) == (False, True)


def test_an_original_without_an_answer_is_an_error_after_the_early_reply(served):
    async def take():
        replies = served.replies(request(LOST), now_s())
        assert (await anext(replies)).parameters["exit"] == "early"
        with pytest.raises(NumericsError, match="not finite"):
            await anext(replies)

    asyncio.run(take())


def test_the_timeout_is_the_first_replys(served, engine):
    async def late():
        engine.gate.clear()
        with pytest.raises(Refusal, match=r"no answer within the 0.001 s") as caught:
            await served.reply(request(SURE, timeout=1000), now_s())
        assert caught.value.kind is Kind.LATE
        with pytest.raises(Refusal, match=r"no answer within the 0.001 s"):
            await all_replies(served, request(SURE, timeout=1000))

        with pytest.raises(Refusal, match="no answer before the deadline of the call"):
            await served.reply(request(SURE), now_s(), now_s())

    asyncio.run(late())
    engine.gate.set()


def test_terms_reach_the_engine_where_there_are_any(served, engine):
    asyncio.run(served.reply(request(SURE), now_s()))
    asyncio.run(served.reply(request(SURE, priority=2, timeout=30_000_000), 10 + now_s()))
    asyncio.run(all_replies(served, request(UNSURE, priority=0)))
    assert engine.terms[0] == engine.terms[2] == {}
    assert engine.terms[1]["priority"] == 2
    assert 0 < engine.terms[1]["deadline_s"] - now_s() < 41


@pytest.mark.parametrize(
    ("model", "version", "message"),
    [("n", "", "model 'n' is unknown: 'm' is"), ("m", "4", "has no version '4': it has '3'")],
)
def test_other_names_are_unknown(engine, model, version, message):
    models = OneModel(engine, name="m", version="3")
    for known in ("", "3"):
        assert models.served("m", known).version == "3"
    with pytest.raises(Refusal, match=message) as caught:
        models.served(model, version)
    assert caught.value.kind is Kind.UNKNOWN


def test_an_engine_that_is_not_ready(served, engine):
    models = OneModel(engine, name="m")
    served.check_ready()
    assert models.ready and models.index()[0]["state"] == "READY"
    engine.ready = False
    assert not models.ready and models.index()[0]["state"] == "UNAVAILABLE"
    with pytest.raises(Refusal, match="not ready") as caught:
        served.check_ready()
    assert caught.value.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize(
    ("labels", "text"), [(("no", "yes"), b":1:yes"), (("no",), b":1"), ((), b":1")]
)
def test_classes_have_names_where_each_has_one(engine, labels, text):
    engine.model = replace(engine.model, labels=labels)
    asked = replace(request(SURE), outputs=(RequestedOutput("logits", True, 1),))
    reply = asyncio.run(Served(engine, name="m").reply(asked, now_s()))
    assert reply.outputs[0].array[0, 0].endswith(text)


def test_more_rows_than_allowed(engine):
    served = Served(engine, name="m", max_rows=1)
    assert served.config["max_batch_size"] == 1
    with pytest.raises(RequestError, match="holds 2 examples, expected at most 1"):
        asyncio.run(served.reply(request(SURE, SURE), 0.0))
