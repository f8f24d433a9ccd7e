"""Running frontends together: one event loop, one pair of signals, an end that loses no request.

On SIGINT or SIGTERM all of them take no further requests, answer those under way, and
:func:`run_frontends` returns: the engine behind them is the caller's to close.

Sharp edge: signals are caught only where this runs in the main thread; elsewhere a frontend's
``stop`` ends it. A second SIGINT ends it at once.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Protocol

DRAIN_TIMEOUT_S = 30


class Frontend(Protocol):
    """A server of one protocol."""

    url: str

    @property
    def unanswered(self) -> int:
        """Requests that were under way when it had to end; known once it has."""
        ...

    async def serve(self, on_started: Callable[[], None]) -> None:
        """Serve until stopped and what was under way is answered; tells when it takes requests."""
        ...

    def stop(self, *, now: bool = False) -> None:
        """Take no more requests; ``now`` gives up those under way. From any thread."""
        ...


def run_frontends(
    frontends: Sequence[Frontend],
    on_ready: Callable[[], None] | None = None,
    on_stop: Callable[[], None] | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM, or until all are stopped.

    Args:
        frontends: At least one.
        on_ready: Called once all of them take requests.
        on_stop: Called when a signal came, on a thread of its own.

    Returns:
        How many requests had to be left unanswered.

    Raises:
        ConfigError: If a port was taken meanwhile; the others are stopped.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(frontends, on_ready, on_stop))
    return sum(frontend.unanswered for frontend in frontends)


async def _run(
    frontends: Sequence[Frontend],
    on_ready: Callable[[], None] | None,
    on_stop: Callable[[], None] | None,
) -> None:
    left = len(frontends)

    def started() -> None:
        nonlocal left
        left -= 1
        if left == 0 and on_ready is not None:
            on_ready()

    async def serve(frontend: Frontend) -> None:
        try:
            await frontend.serve(started)
        except Exception:
            for other in frontends:
                other.stop()
            raise

    with _signals(frontends, on_stop):
        results = await asyncio.gather(*map(serve, frontends), return_exceptions=True)
    for error in results:
        if error is not None:
            raise error


@contextlib.contextmanager
def _signals(frontends: Sequence[Frontend], on_stop: Callable[[], None] | None) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and bool(seen)
        if on_stop is not None and not seen:
            threading.Thread(target=on_stop, name="apparate-stop", daemon=True).start()
        seen.append(number)
        for frontend in frontends:
            frontend.stop(now=again)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster loop where it is installed; asyncio's own elsewhere."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
