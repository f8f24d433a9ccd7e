"""Loads under way, which can be abandoned: a server that ends does not wait for a compiler.

A load is a thread deep in tracing and compiling. It is told at its next step, and the child that
compiles for it is ended. What it made until then was never in service, and is let go.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from apparate_jax.serve.inference import Kind, Refusal
from apparate_jax.serve.programs import Progress
from apparate_jax.serve.service import OnPhase

RESTS, LONGEST_REST_S = 3.0, 0.02
"""A load beside a model that serves rests after each step, so many times as long as that took."""


class Abandoned(Refusal):
    """The load was given up, since the server ends."""

    def __init__(self) -> None:
        super().__init__(
            Kind.UNAVAILABLE, "the server is closing: what was being loaded is given up"
        )


class Closable(Protocol):
    """What works for a load, perhaps in a child."""

    def close(self) -> None:
        """End it, whatever it is at."""
        ...


class Loading:
    """Whether loads may go on, and what they work with. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned = False
        self._at_work: list[Closable] = []

    @property
    def abandoned(self) -> bool:
        """Whether they are given up."""
        return self._abandoned

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Abandoned: Not.
        """
        if self._abandoned:
            raise Abandoned

    @contextlib.contextmanager
    def one(self) -> Iterator[Callable[[Closable], None]]:
        """A load, from here to its end: gives what is to be told of whatever works for it.

        Raises:
            Abandoned: Loads are given up already; so does what it gives.
        """
        mine: list[Closable] = []

        def began(one: Closable) -> None:
            with self._lock:
                self.check()
                mine.append(one)
                self._at_work.append(one)

        self.check()
        try:
            yield began
        finally:
            with self._lock:
                self._at_work = [one for one in self._at_work if one not in mine]

    def abandon(self) -> None:
        """Give up all loads, now and from now on."""
        with self._lock:
            self._abandoned = True
            at_work = list(self._at_work)
        for one in at_work:
            one.close()

    def checked(self, progress: OnPhase | None) -> OnPhase:
        """The same progress, of a load that ends at its next step once it is given up."""

        def on_phase(what: str) -> Progress:
            self.check()
            tell = None if progress is None else progress(what)

            def on_step(done: int, total: int, what: str) -> None:
                self.check()
                if tell is not None:
                    tell(done, total, what)

            return on_step

        return on_phase


def rested(progress: OnPhase) -> OnPhase:
    """The same progress, of a load beside a model that serves: tracing holds Python's lock."""

    def on_phase(what: str) -> Progress:
        tell, begun_s = progress(what), time.monotonic()

        def on_step(done: int, total: int, what: str) -> None:
            nonlocal begun_s
            tell(done, total, what)
            time.sleep(min(RESTS * (time.monotonic() - begun_s), LONGEST_REST_S))
            begun_s = time.monotonic()

        return on_step

    return on_phase
