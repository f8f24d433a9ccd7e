"""A stub of an engine, for what measures what stands in front of one."""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Answer, InputSpec, Model


class StubEngine:
    """Takes a fixed time for each request, one after the other, and says how long each was there.

    The first score of an answer is the time from submission to answer in ms, its place in line
    included; ``spans_ms`` keeps them all.
    """

    ready = True

    def __init__(
        self, inputs: Sequence[InputSpec], classes: int, service_ms: float, *, rows: int = 1
    ) -> None:
        """Start the engine's thread.

        Args:
            inputs: Of the model that it stands for, which is named ``stub``.
            classes: Scores in an answer.
            service_ms: What a request takes.
            rows: Examples in every request; they are answered at once.
        """
        self.num_classes = classes
        self.model = Model("stub", lambda params, *inputs: inputs[0], {}, tuple(inputs))
        self.spans_ms: list[float] = []
        self._rows, self._service_s = rows, service_ms / 1e3
        self._scores = np.random.default_rng(0).normal(size=classes).astype(np.float32)
        self._queue: queue.SimpleQueue[tuple[float, Future[Answer]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def submit(self, inputs: Mapping[str, NDArray[Any]], **_: Any) -> Future[Answer]:
        """Take one example."""
        future: Future[Answer] = Future()
        self._queue.put((time.perf_counter(), future))
        return future

    def close(self) -> None:
        """End the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            start_s, future = item
            waiting = [future] + [self._queue.get()[1] for _ in range(self._rows - 1)]  # type: ignore[index]
            if self._service_s:
                time.sleep(self._service_s)
            here_ms = (time.perf_counter() - start_s) * 1e3
            self.spans_ms.append(here_ms)
            scores = np.concatenate([np.array([here_ms], np.float32), self._scores[1:]])
            for one in waiting:
                one.set_result(Answer(int(scores.argmax()), scores, 0.25))
