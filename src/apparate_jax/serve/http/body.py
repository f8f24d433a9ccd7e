"""Bodies of requests and responses: bounded in size and in time, compressed or not.

A body that is too long is refused as soon as that is known: by its ``Content-Length``, else while
it is read, else while it is decompressed. What the client still sends is dropped.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import TypeVar

from starlette.types import Receive

from apparate_jax.errors import RequestError
from apparate_jax.serve.http.errors import HttpRefusal
from apparate_jax.serve.http.limits import HttpLimits

Headers = Mapping[bytes, bytes]
_T = TypeVar("_T")

_WINDOW_BITS = MappingProxyType({"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS})
_FASTEST = 1


class ClientGoneError(Exception):
    """The client went away before its request was complete: there is nobody to answer."""


async def read_body(receive: Receive, headers: Headers, limits: HttpLimits) -> bytes:
    """Read a request's body and decompress it.

    Args:
        receive: The connection, as ASGI gives it.
        headers: Of the request, names in lower case.
        limits: Bounds on size and time.

    Raises:
        ClientGoneError: If the connection ended before the body did.
        HttpRefusal: Too large (413), too slow (408), or of an unknown coding (415).
        RequestError: If it does not decompress.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:19]) > limits.max_body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            body = await _receive_all(receive, limits)
    except TimeoutError:
        raise HttpRefusal(
            408,
            f"the body was not complete after {limits.body_timeout_s:g} s: send as many bytes as "
            "Content-Length says",
            {"Connection": "close"},
        ) from None
    coding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if coding in ("", "identity"):
        return body
    # In a thread, where zlib lets go of the interpreter: a small body may become a large one.
    return await asyncio.to_thread(decompress, body, coding, limits)


async def unless_gone(receive: Receive, answering: Awaitable[_T]) -> _T:
    """Wait for an answer as long as the client does.

    Args:
        receive: The connection, once its request was read.
        answering: Cancelled when the connection ends.

    Raises:
        ClientGoneError: If it ended first.
    """
    task = asyncio.current_task()
    assert task is not None
    waiting, left = True, False

    def leave(watching: "asyncio.Task[None]") -> None:
        nonlocal left
        if waiting and not watching.cancelled():
            left = True
            task.cancel()

    watching = asyncio.create_task(_end_of_connection(receive))
    watching.add_done_callback(leave)
    try:
        return await answering
    except asyncio.CancelledError:
        if left and task.uncancel() == 0:
            raise ClientGoneError from None
        raise
    finally:
        waiting = False
        watching.cancel()


async def _end_of_connection(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _receive_all(receive: Receive, limits: HttpLimits) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > limits.max_body_bytes:
            raise _too_large(limits)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limits: HttpLimits) -> HttpRefusal:
    return HttpRefusal(
        413, f"the body is larger than {limits.max_body_bytes} bytes: split the request"
    )


def decompress(body: bytes, coding: str, limits: HttpLimits) -> bytes:
    """Decompress a request's body; never holds more than the limit.

    Raises:
        HttpRefusal: Too large (413), or a coding other than gzip and deflate (415).
        RequestError: If the data is damaged, cut off, or followed by something else.
    """
    bits = _WINDOW_BITS.get(coding)
    if bits is None:
        raise HttpRefusal(
            415, f"Content-Encoding is {coding!r:.40}, expected gzip, deflate or none"
        )
    stream = zlib.decompressobj(bits)
    try:
        plain = stream.decompress(body, limits.max_body_bytes + 1)
    except zlib.error as error:
        raise RequestError(f"the body is not {coding} data: {error}") from None
    if len(plain) > limits.max_body_bytes:
        raise _too_large(limits)
    if not stream.eof:
        raise RequestError(f"the body's {coding} data is cut off")
    if stream.unused_data:
        raise RequestError(
            f"{len(stream.unused_data)} bytes follow the body's {coding} data, expected none"
        )
    return plain


def accepted_coding(headers: Headers) -> str | None:
    """The coding of those that the client accepts in which to send a long response.

    >>> accepted_coding({b"accept-encoding": b"br, deflate;q=0.5, gzip;q=0"})
    'deflate'
    """
    accepted = set()
    for entry in headers.get(b"accept-encoding", b"").decode("latin-1").lower().split(","):
        coding, _, quality = entry.partition(";")
        if quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            accepted.add(coding.strip())
    return next((coding for coding in _WINDOW_BITS if coding in accepted), None)


def compress(body: bytes, coding: str) -> bytes:
    """Compress a response's body, fast rather than small."""
    stream = zlib.compressobj(_FASTEST, wbits=_WINDOW_BITS[coding])
    return stream.compress(body) + stream.flush()
