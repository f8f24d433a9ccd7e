"""Calls under way, and how they end with the server.

gRPC's library cancels what reaches a server in the moment in which it stops to listen: clients see
``CANCELLED``, which tells them nothing. So calls that come once the server is to end are held until
it has said good-bye to their connections (GOAWAY), and are refused then; a client that waits for an
answer sends nothing into that moment. Calls that are given up are refused as well.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

CLOSING = "the server is closing: ask another one, or again later"
LATE = "the server closed before this was answered: ask another one, or again later"


class Calls:
    """The calls of a service. To be used on its event loop.

    Attributes:
        closing: Set once no further call is taken.
        unanswered: Requests that were given up.
    """

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.unanswered = 0
        self._deaf = asyncio.Event()
        self._given_up = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """Take no further call; those that come are held."""
        self.closing.set()

    def refuse_held(self) -> None:
        """Refuse what is held: the server does not listen any more."""
        self._deaf.set()

    def give_up(self) -> None:
        """Refuse what is under way."""
        self._given_up = True
        self.refuse_held()
        for task in self._tasks:
            task.cancel()

    @contextlib.asynccontextmanager
    async def one(self, context: Any) -> AsyncIterator[None]:
        """A call, from here to its end.

        Args:
            context: gRPC's, of the call; ended as ``UNAVAILABLE`` where the server is.
        """
        if self.closing.is_set():
            await self._deaf.wait()
            await context.abort(grpc.StatusCode.UNAVAILABLE, CLOSING)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._given_up:
                raise  # by the client
            task.uncancel()
            await context.abort(grpc.StatusCode.UNAVAILABLE, LATE)
        finally:
            self._tasks.discard(task)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """A request, alone in its call or one of a stream's: counted if it is given up."""
        try:
            yield
        except asyncio.CancelledError:
            self.unanswered += self._given_up
            raise
