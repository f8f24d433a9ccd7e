"""The rows of one request on their way through the engine.

Every row is an example of its own: it may leave at another exit than its neighbours and be batched
with other clients' rows. The event loop is woken once per request, when the last row has its
answer, not once per row.
"""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from numpy.typing import NDArray

from apparate_jax.core import Answer, Model


class Answering(Protocol):
    """What the server needs of an engine."""

    @property
    def model(self) -> Model:
        """The model that is served; its inputs are described."""
        ...

    @property
    def num_classes(self) -> int:
        """Width of the scores."""
        ...

    @property
    def ready(self) -> bool:
        """Whether requests are taken and answered."""
        ...

    def submit(self, inputs: Mapping[str, NDArray[Any]], *, exact: bool = False) -> Future[Answer]:
        """Submit one example (arrays without the batch axis); the future resolves on any thread."""
        ...


async def answer_rows(
    engine: Answering,
    inputs: Mapping[str, NDArray[Any]],
    *,
    exact: bool = False,
    deadline_s: float | None = None,
) -> list[Answer]:
    """Submit every row and wait for all answers.

    Args:
        engine: Answers single examples.
        inputs: Arrays ``[n, ...]`` by name, n the same for all.
        exact: Never exit early.
        deadline_s: When to give up, seconds of the event loop's clock.

    Returns:
        n answers, in the order of the rows.

    Raises:
        TimeoutError: If the deadline passed; rows that had not begun are withdrawn.
        ApparateError: What the engine raised for the first row that it could not answer; if it
            refuses one row, those before it are withdrawn.
    """
    futures = _submit_rows(engine, inputs, exact)
    try:
        async with asyncio.timeout_at(deadline_s):
            await _all_done(futures)
    except BaseException:
        _withdraw(futures)
        raise
    return [future.result() for future in futures]


def _submit_rows(
    engine: Answering, inputs: Mapping[str, NDArray[Any]], exact: bool
) -> list[Future[Answer]]:
    futures: list[Future[Answer]] = []
    count = len(next(iter(inputs.values())))
    try:
        for row in range(count):
            example = {name: array[row, ...] for name, array in inputs.items()}
            futures.append(engine.submit(example, exact=exact))
    except BaseException:
        _withdraw(futures)
        raise
    return futures


def _withdraw(futures: Sequence[Future[Answer]]) -> None:
    for future in futures:
        future.cancel()


def _all_done(futures: Sequence[Future[Answer]]) -> "asyncio.Future[None]":
    """A future of the event loop, done once all of ``futures`` are: one wake-up for all."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    lock = threading.Lock()
    left = len(futures)

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    def count_down(_: Future[Answer]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        # A closed loop has nobody left who waits.
        if last and not loop.is_closed():
            loop.call_soon_threadsafe(wake)

    for future in futures:
        future.add_done_callback(count_down)
    return done
