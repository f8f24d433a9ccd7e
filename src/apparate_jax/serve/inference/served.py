"""A model under the name by which clients ask for it, and what it answers them."""

import math
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from apparate_jax.core import FINAL, Answer
from apparate_jax.errors import ConfigError
from apparate_jax.serve.inference.answers import Answering, answer_rows, answers_then_finals
from apparate_jax.serve.inference.counted import Counting, counted
from apparate_jax.serve.inference.describe import model_config, model_metadata
from apparate_jax.serve.inference.outputs import (
    Options,
    options_of,
    output_tensors,
    response_parameters,
)
from apparate_jax.serve.inference.raw_inputs import raw_inputs_of
from apparate_jax.serve.inference.refusals import Kind, Refusal
from apparate_jax.serve.protocol import InferRequest, OutputTensor, Scalar, check_against
from apparate_jax.serve.telemetry import Statistics

if TYPE_CHECKING:
    from apparate_jax.serve.telemetry.spans import Spans

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
DEFAULT_VERSION = "1"
MAX_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What a client gets for a request.

    Attributes:
        outputs: Tensors in the order asked for.
        parameters: Scalars that go with them.
        last: Whether no further reply to this request follows.
    """

    outputs: Sequence[OutputTensor]
    parameters: dict[str, Scalar]
    last: bool = True


class Served:
    """A model, its name and version, and how it answers parsed requests."""

    def __init__(
        self,
        engine: Answering,
        *,
        name: str,
        version: str = DEFAULT_VERSION,
        max_rows: int = MAX_ROWS,
        statistics: Statistics | None = None,
        spans: "Spans | None" = None,
    ) -> None:
        """Describe a model to clients.

        Args:
            engine: Answers single examples.
            name: Under which clients address the model.
            version: The one version that there is.
            max_rows: Most examples in one request.
            statistics: Where requests are counted; nowhere if None.
            spans: Where requests are traced; nowhere if None.

        Raises:
            ConfigError: If a name cannot be part of a path, or the model's inputs are unknown or
                have no datatype of the protocol.
        """
        for what, value in (("model name", name), ("model version", version)):
            if not value or "/" in value:
                raise ConfigError(f"the {what} is {value!r}, expected a name without '/'")
        if not engine.model.inputs:
            raise ConfigError(
                f"the inputs of {engine.model.name!r} are not described: give inputs= where the "
                "model is made"
            )
        self.name = name
        self.version = version
        self.max_rows = max_rows
        self.statistics = statistics
        self._spans = spans
        self._engine = engine
        self._raw = raw_inputs_of(engine.model)
        labels = engine.model.labels
        self._labels = labels if len(labels) == engine.num_classes else ()
        self.metadata = model_metadata(name, version, engine.model, engine.num_classes)
        self.config = model_config(
            self.metadata, max_rows, None if self._raw is None else self._raw.name
        )

    @property
    def ready(self) -> bool:
        """Whether requests are taken and answered."""
        return self._engine.ready

    def check_ready(self) -> None:
        """Refuse while no requests are taken.

        Raises:
            Refusal: Of kind ``UNAVAILABLE``.
        """
        if not self.ready:
            raise Refusal(Kind.UNAVAILABLE, f"model {self.name!r} is not ready: ask again later")

    async def reply(
        self,
        request: InferRequest,
        arrived_s: float,
        deadline_s: float = math.inf,
        carrier: Mapping[str, str] = NO_HEADERS,
    ) -> Reply:
        """Answer a request.

        Args:
            request: What the client sent.
            arrived_s: When it came, seconds of the monotonic clock; its timeout counts from it.
            deadline_s: When its client gives up in any case, of the same clock.
            carrier: Headers that may name the client's span.

        Raises:
            RequestError: If it does not fit the model.
            Refusal: If its time ran out; examples that had not begun are withdrawn.
            ApparateError: What the engine raised.
        """
        with self._watched(arrived_s, carrier) as (times, span):
            options, inputs = await self._checked(request)
            times.input_s = now_s() - arrived_s
            terms = options.terms(arrived_s, deadline_s, span)
            try:
                answers = await answer_rows(self._engine, inputs, terms)
            except TimeoutError:
                raise _late(options) from None
            with times.output():
                return self._made(options, answers, response_parameters(answers))

    async def replies(
        self,
        request: InferRequest,
        arrived_s: float,
        carrier: Mapping[str, str] = NO_HEADERS,
    ) -> AsyncGenerator[Reply, None]:
        """Answer a request as soon as possible, and again once the original model has answered.

        Parameter ``provisional`` is true where another reply follows, because an answer left
        early. That one holds the original model's own answers, and its parameter ``confirmed`` says
        whether they have the labels of the early ones.

        Args:
            request: What the client sent.
            arrived_s: When it came, seconds of the monotonic clock; the timeout is that of the
                first reply.
            carrier: Headers that may name the client's span.

        Yields:
            One reply or two.

        Raises:
            RequestError: If it does not fit the model.
            Refusal: If its time ran out.
            ApparateError: What the engine raised.
        """
        with self._watched(arrived_s, carrier) as (times, span):
            options, inputs = await self._checked(request)
            times.input_s = now_s() - arrived_s
            early: list[Answer] | None = None
            terms = options.terms(arrived_s, trace=span)
            answering = answers_then_finals(self._engine, inputs, terms)
            async with aclosing(answering):
                try:
                    async for answers in answering:
                        with times.output():
                            reply = self._reply_of(options, answers, early)
                        early = answers
                        yield reply
                except TimeoutError:
                    raise _late(options) from None

    @contextmanager
    def _watched(
        self, arrived_s: float, carrier: Mapping[str, str]
    ) -> Iterator[tuple[Counting, object | None]]:
        """A request that is counted, and perhaps traced: its times and its span."""
        with counted(self.statistics, arrived_s) as times:
            if self._spans is None:
                yield times, None
                return
            with self._spans.request(self.name, self.version, carrier, arrived_s) as span:
                yield times, span

    async def _checked(self, request: InferRequest) -> tuple[Options, dict[str, NDArray[Any]]]:
        options = options_of(request)
        inputs = request.inputs
        if self._raw is not None and self._raw.is_meant(inputs):
            inputs = await self._raw.prepare(inputs, self.max_rows)
        return options, check_against(self._engine.model.inputs, inputs, self.max_rows)

    def _reply_of(
        self, options: Options, answers: Sequence[Answer], early: Sequence[Answer] | None
    ) -> Reply:
        """One of the replies in a stream: the first one, or that which confirms ``early``."""
        parameters = response_parameters(answers)
        provisional = early is None and not _all_final(answers)
        parameters["provisional"] = provisional
        if early is not None:
            parameters["confirmed"] = _labels(answers) == _labels(early)
        return self._made(options, answers, parameters, last=not provisional)

    def _made(
        self,
        options: Options,
        answers: Sequence[Answer],
        parameters: dict[str, Scalar],
        last: bool = True,
    ) -> Reply:
        return Reply(output_tensors(options.outputs, answers, self._labels), parameters, last)


def now_s() -> float:
    """Seconds of the monotonic clock, which is the engine's and the event loop's too."""
    return time.monotonic()


def _all_final(answers: Sequence[Answer]) -> bool:
    return all(answer.exit == FINAL for answer in answers)


def _labels(answers: Sequence[Answer]) -> list[int]:
    return [answer.label for answer in answers]


def _late(options: Options) -> Refusal:
    if options.timeout_s is None:
        return Refusal(Kind.LATE, "no answer before the deadline of the call")
    return Refusal(Kind.LATE, f"no answer within the {options.timeout_s:g} s of timeout")
