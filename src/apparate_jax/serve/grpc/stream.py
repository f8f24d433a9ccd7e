"""Streams of requests: many under way at a time, each answered once or twice.

A request whose answer leaves early gets it at once, marked provisional, and then the original
model's own. Replies go out as they are there: those of different requests interleave, told apart
by their ``id``. What is wrong with a request is said in the stream, which goes on.

References:
    Triton's protocol, "Decoupled Backends and Models".
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing

import grpc

from apparate_jax.serve.grpc.calls import Calls
from apparate_jax.serve.grpc.encoding import decode_request, encode_reply, set_parameters
from apparate_jax.serve.grpc.errors import told
from apparate_jax.serve.grpc.inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from apparate_jax.serve.inference import Models, Reply, Served, now_s
from apparate_jax.serve.inference.served import NO_HEADERS

LAST = "triton_final_response"
_LOG = logging.getLogger(__name__)

Write = Callable[[ModelStreamInferResponse], Awaitable[None]]


async def answer_stream(
    models: Models,
    messages: AsyncIterator[ModelInferRequest],
    write: Write,
    calls: Calls,
    max_streamed: int,
    carrier: Mapping[str, str] = NO_HEADERS,
) -> bool:
    """Answer the requests of a stream until it ends or the server closes.

    Args:
        models: What is served.
        messages: The stream's requests.
        write: Sends a response.
        calls: Of the server; once it closes, no further request is read, and those that were are
            answered.
        max_streamed: Most requests under way; the stream is not read while there are so many.
        carrier: Metadata that may name the client's span.

    Returns:
        Whether the client has ended it.
    """
    slots = asyncio.Semaphore(max_streamed)
    writing = asyncio.Lock()

    async def answer(message: ModelInferRequest) -> None:
        try:
            with calls.request():
                async with aclosing(_responses(models, message, carrier)) as responses:
                    async for response in responses:
                        async with writing:
                            await write(response)
        except grpc.aio.BaseError:
            # The client has gone; gRPC cancels the stream as soon as it knows.
            _LOG.debug("a stream ended before a response was sent")
        finally:
            slots.release()

    until = _until(calls.closing, messages)
    async with aclosing(until) as received, asyncio.TaskGroup() as group:
        async for message in received:
            if message is None:
                return True
            await slots.acquire()
            group.create_task(answer(message))
    return False


async def _until(
    closing: asyncio.Event, messages: AsyncIterator[ModelInferRequest]
) -> AsyncGenerator[ModelInferRequest | None, None]:
    """The requests of a stream, until the server closes or it ends, which None says."""
    closed = asyncio.ensure_future(closing.wait())
    try:
        while not closing.is_set():
            message = asyncio.ensure_future(anext(messages, None))
            try:
                await asyncio.wait([message, closed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not message.done():
                    message.cancel()
            if not message.done():
                return
            yield (received := message.result())
            if received is None:
                return
    finally:
        closed.cancel()


async def _responses(
    models: Models, message: ModelInferRequest, carrier: Mapping[str, str]
) -> AsyncGenerator[ModelStreamInferResponse, None]:
    """What a request gets: replies, or the error that ended it."""
    arrived_s = now_s()
    try:
        with models.lease(message.model_name, message.model_version) as served:
            served.check_ready()
            async for reply in served.replies(decode_request(message), arrived_s, carrier):
                yield ModelStreamInferResponse(infer_response=_encoded(served, message, reply))
    except Exception as error:
        nothing = ModelInferResponse(id=message.id)
        set_parameters(nothing.parameters, {LAST: True})
        yield ModelStreamInferResponse(error_message=told(error), infer_response=nothing)


def _encoded(served: Served, message: ModelInferRequest, reply: Reply) -> ModelInferResponse:
    response = encode_reply(reply, served.name, served.version, message.id)
    set_parameters(response.parameters, {LAST: reply.last})
    return response
