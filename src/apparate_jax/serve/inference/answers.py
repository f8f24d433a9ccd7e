"""The rows of one request on their way through the engine.

Every row is an example of its own: it may leave at another exit than its neighbours and be batched
with other clients' rows. The event loop is woken once per request, when the last row has its
answer, not once per row.

A stream gets the answers twice where any of them left early: as they are, and then the original
model's own.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from apparate_jax.core import FINAL, Answer, Model


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

    def submit(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        exact: bool = False,
        final: Future[Answer] | None = None,
        priority: int | None = None,
        deadline_s: float | None = None,
        trace: object | None = None,
    ) -> Future[Answer]:
        """Submit one example (arrays without the batch axis); futures resolve on any thread.

        All but ``exact`` is given only where a client asks for it: ``final``, for streams, is
        resolved with the original model's own answer too; ``priority`` is a level, 1 the highest;
        ``deadline_s`` is when the answer is due, seconds of the monotonic clock; ``trace`` is the
        request's span.
        """
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a request is to be answered.

    Attributes:
        exact: Never exit early.
        priority: Its level, 1 is the highest; None for the engine's default.
        deadline_s: When its client gives up, seconds of the monotonic clock; None for never.
        trace: Its span; None where it is not traced.
    """

    exact: bool = False
    priority: int | None = None
    deadline_s: float | None = None
    trace: object | None = None

    def given(self) -> dict[str, Any]:
        """As arguments of ``submit``, without those that say nothing."""
        said = {"priority": self.priority, "deadline_s": self.deadline_s, "trace": self.trace}
        return {"exact": self.exact} | {k: v for k, v in said.items() if v is not None}


ANY_TERMS = Terms()


async def answer_rows(
    engine: Answering,
    inputs: Mapping[str, NDArray[Any]],
    terms: Terms = ANY_TERMS,
) -> list[Answer]:
    """Submit every row and wait for all answers.

    Args:
        engine: Answers single examples.
        inputs: Arrays ``[n, ...]`` by name, n the same for all.
        terms: When to give up, among others.

    Returns:
        n answers, in the order of the rows.

    Raises:
        TimeoutError: If the deadline passed; rows that had not begun are withdrawn.
        ApparateError: What the engine raised for the first row that it could not answer; if it
            refuses one row, those before it are withdrawn.
    """
    futures = _submit_rows(engine, inputs, terms)
    return await _results(futures, terms.deadline_s)


async def answers_then_finals(
    engine: Answering,
    inputs: Mapping[str, NDArray[Any]],
    terms: Terms = ANY_TERMS,
) -> AsyncGenerator[list[Answer], None]:
    """Like :func:`answer_rows`, and then the original model's own answers if any left early.

    The deadline is that of the first answers: who has them waits for the others as long as it
    takes.
    """
    finals: list[Future[Answer]] = []
    futures = _submit_rows(engine, inputs, terms, finals)
    answers = await _results(futures, terms.deadline_s)
    yield answers
    if any(answer.exit != FINAL for answer in answers):
        yield await _results(finals, None)


def _submit_rows(
    engine: Answering,
    inputs: Mapping[str, NDArray[Any]],
    terms: Terms,
    finals: list[Future[Answer]] | None = None,
) -> list[Future[Answer]]:
    """A future for each row; ``finals`` gets another one for each."""
    futures: list[Future[Answer]] = []
    count = len(next(iter(inputs.values())))
    given = terms.given()
    try:
        for row in range(count):
            example = {name: array[row, ...] for name, array in inputs.items()}
            if finals is None:
                futures.append(engine.submit(example, **given))
            else:
                finals.append(Future())
                futures.append(engine.submit(example, final=finals[-1], **given))
    except BaseException:
        _withdraw(futures)
        raise
    return futures


async def _results(futures: Sequence[Future[Answer]], deadline_s: float | None) -> list[Answer]:
    try:
        async with asyncio.timeout_at(deadline_s):
            await _all_done(futures)
    except BaseException:
        _withdraw(futures)
        raise
    return [future.result() for future in futures]


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
