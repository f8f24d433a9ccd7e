"""A connection whose requests' heads are bounded in size and in time.

Uvicorn's own waits for the end of a head as long as it takes, and keeps what has come of it however
much that is: a few thousand clients that send a byte a minute would hold every connection, and one
that never ends a header all of the memory. Bodies are the application's to bound.
"""

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_S = 30.0
MAX_HEAD_BYTES = 65536


class Connection(HttpToolsProtocol):
    """Uvicorn's connection; one whose head is too long or too slow is refused and closed."""

    _head_bytes = 0
    _in_head = True
    _refused = False
    _slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._limit_time(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._unlimited()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, as long as the head is within its bounds."""
        if self._refused:
            return
        if self._in_head:
            if not self._head_bytes:
                self._limit_time(HEAD_TIMEOUT_S)
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, _TOO_LONG)

    def on_headers_complete(self) -> None:
        """The head is there: time and size are the body's from here on."""
        self._in_head = False
        self._unlimited()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._refuse(431, _TOO_LONG)
            raise ValueError(_TOO_LONG)  # the parser reads no further
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next bytes are another head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def _limit_time(self, after_s: float) -> None:
        self._unlimited()
        self._slow = self.loop.call_later(after_s, self._too_slow)

    def _unlimited(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _too_slow(self) -> None:
        if self._head_bytes:
            self._refuse(408, f"the request's head was not complete after {HEAD_TIMEOUT_S:g} s")
        else:
            self.transport.close()  # it never asked for anything

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, in the protocol's form."""
        self._refuse(400, f"{msg} Expected HTTP/1.1, such as GET /v2/health/ready")

    def _refuse(self, status: int, text: str) -> None:
        """Say why and close; a request that came whole before is answered first."""
        self._unlimited()
        if self._refused:
            return
        self._refused = True
        under_way = self.cycle is not None and not self.cycle.response_complete
        if under_way and not self.cycle.more_body:
            self.cycle.keep_alive = False  # its answer closes the connection
            return
        if not (under_way and self.cycle.response_started):
            body = json.dumps({"error": text}).encode()
            head = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


_REASONS = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}
_TOO_LONG = f"the request's head is longer than {MAX_HEAD_BYTES} bytes"
