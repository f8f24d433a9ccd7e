"""What clients may ask for and get: options of a request, tensors and parameters of a response.

By default a response holds the model's outputs, ``logits`` FP32 [n, classes] and ``label`` INT64
[n]. How each row was answered can be asked for by name as further outputs: ``exit`` BYTES [n],
``exit_depth`` FP32 [n] and ``error`` FP32 [n]. The protocol's parameters are scalars: for a request
of a single row, which is the common case, the three come as response parameters too; for several
rows only the outputs say them.

The scores can be asked for as classes instead (the protocol's extension "classification").
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as short
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Answer
from apparate_jax.errors import RequestError
from apparate_jax.serve.inference.answers import Terms
from apparate_jax.serve.inference.classification import top_classes
from apparate_jax.serve.protocol import InferRequest, OutputTensor, RequestedOutput, Scalar

SCORES = "logits"
DEFAULT_OUTPUTS = (SCORES, "label")


def _exits(answers: Sequence[Answer]) -> NDArray[Any]:
    names = np.empty(len(answers), object)
    names[:] = [answer.exit.encode() for answer in answers]
    return names


_MAKE: Mapping[str, Callable[[Sequence[Answer]], NDArray[Any]]] = MappingProxyType(
    {
        SCORES: lambda answers: np.array([a.scores for a in answers], np.float32),
        "label": lambda answers: np.array([a.label for a in answers], np.int64),
        "exit": _exits,
        "exit_depth": lambda answers: np.array([a.exit_depth for a in answers], np.float32),
        "error": lambda answers: np.array([a.error for a in answers], np.float32),
    }
)


@dataclass(frozen=True, slots=True)
class Options:
    """How a client wants its request to be answered.

    Attributes:
        outputs: In the order in which they are sent.
        exact: Never exit early.
        timeout_s: When the client gives up, None for never.
        priority: The request's level, 1 is the highest; None for the engine's default.
    """

    outputs: tuple[RequestedOutput, ...]
    exact: bool
    timeout_s: float | None
    priority: int | None = None

    def terms(
        self, arrived_s: float, deadline_s: float = math.inf, trace: object | None = None
    ) -> Terms:
        """The terms of a request, by the earlier of its timeout and its deadline.

        Args:
            arrived_s: When it came, seconds of the monotonic clock.
            deadline_s: When its client gives up in any case, of the same clock.
            trace: Its span.
        """
        if self.timeout_s is not None:
            deadline_s = min(deadline_s, arrived_s + self.timeout_s)
        due_s = deadline_s if math.isfinite(deadline_s) else None
        return Terms(self.exact, self.priority, due_s, trace)


def options_of(request: InferRequest) -> Options:
    """Read the options of a request.

    Raises:
        RequestError: If an output is unknown, or the parameter ``accuracy``, ``timeout`` or
            ``priority`` has another value than it can have.
    """
    accuracy = request.parameters.get("accuracy")
    if accuracy not in (None, "exact"):
        raise RequestError(f"parameter accuracy is {short(accuracy)}, expected 'exact' or none")
    timeout_us = request.parameters.get("timeout", 0)
    if type(timeout_us) is not int or not 0 <= timeout_us < 2**63:
        raise RequestError(
            f"parameter timeout is {short(timeout_us)}, expected microseconds (0 for no limit)"
        )
    priority = request.parameters.get("priority", 0)
    if type(priority) is not int or priority < 0:
        raise RequestError(
            f"parameter priority is {short(priority)}, expected a level (1 the highest, 0 for none)"
        )
    outputs = request.outputs
    if outputs is None:
        outputs = tuple(RequestedOutput(name, request.binary_output) for name in DEFAULT_OUTPUTS)
    for output in outputs:
        if output.name not in _MAKE:
            raise RequestError(f"output {output.name!r} is unknown, expected some of {list(_MAKE)}")
        if output.classes and output.name != SCORES:
            raise RequestError(
                f"classification is asked of output {output.name!r}, expected {SCORES!r}: only "
                "scores can be put in order"
            )
    timeout_s = timeout_us / 1e6 if timeout_us else None
    return Options(outputs, accuracy == "exact", timeout_s, priority or None)


def output_tensors(
    outputs: Sequence[RequestedOutput], answers: Sequence[Answer], labels: Sequence[str] = ()
) -> list[OutputTensor]:
    """The tensors of a response.

    Args:
        outputs: Those to send.
        answers: One per row, n of them.
        labels: Names of the classes; empty when unknown.

    Returns:
        Tensors of n rows each, in the order of ``outputs``.
    """
    tensors = []
    for output in outputs:
        array = _MAKE[output.name](answers)
        if output.classes:
            array = top_classes(array, output.classes, labels)
        tensors.append(OutputTensor(output.name, array, output.binary))
    return tensors


def response_parameters(answers: Sequence[Answer]) -> dict[str, Scalar]:
    """``exit``, ``exit_depth`` (0..1) and ``error`` (0..1) of a single answer; else nothing."""
    if len(answers) != 1:
        return {}
    answer = answers[0]
    return {"exit": answer.exit, "exit_depth": answer.exit_depth, "error": answer.error}
