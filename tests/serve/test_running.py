"""Frontends that run together: ready together, stopped together, one error for both."""

import asyncio
import os
import signal
import threading

import pytest

from apparate_jax.errors import ConfigError
from apparate_jax.serve.running import run_frontends


class Fake:
    """A frontend that serves until it is stopped, or fails where it starts."""

    unanswered = 2

    def __init__(self, fails=False):
        self.url = "fake://"
        self.fails = fails
        self.stops = []
        self._ended = asyncio.Event()

    async def serve(self, on_started):
        if self.fails:
            raise ConfigError("the port is in use")
        self._loop = asyncio.get_running_loop()
        on_started()
        await self._ended.wait()

    def stop(self, *, now=False):
        self.stops.append(now)
        if hasattr(self, "_loop"):
            self._loop.call_soon_threadsafe(self._ended.set)
        self._ended.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_once_all_are_ready(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    ready = []

    def on_ready():
        ready.append(True)
        os.kill(os.getpid(), number)

    both = [Fake(), Fake()]
    stopped = threading.Event()
    assert run_frontends(both, on_ready, stopped.set) == 4, "what both left unanswered"
    assert ready == [True] and stopped.wait(10)
    assert [fake.stops for fake in both] == [[False], [False]]
    assert {n: signal.getsignal(n) for n in before} == before


def test_a_second_interrupt_gives_up_what_is_under_way():
    class Slow(Fake):
        def stop(self, *, now=False):
            self.stops.append(now)
            if now:
                super().stop(now=now)
            else:
                os.kill(os.getpid(), signal.SIGINT)

    slow = Slow()
    run_frontends([slow], lambda: os.kill(os.getpid(), signal.SIGINT))
    assert slow.stops[0] is False and True in slow.stops


def test_one_that_fails_stops_the_others():
    ready = []
    well, ill = Fake(), Fake(fails=True)
    with pytest.raises(ConfigError, match="the port is in use"):
        run_frontends([well, ill], lambda: ready.append(True))
    assert well.stops == [False] and ready == []
