"""A second driver of the interface that the server needs: a linear model on a thread of its own."""

import queue
import threading
from concurrent.futures import Future

import numpy as np

from apparate_jax.core import Answer, InputSpec, Model
from apparate_jax.errors import EngineClosedError, NumericsError, QueueFullError

WEIGHTS = np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 1.0]], np.float32)
EMBEDDING = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0], [1.0, 1.0]], np.float32)
EARLY_BELOW = 0.1


def logits_of(x, ids):
    """What the model gives for x f32[n, 3] and ids i32[n, 2]."""
    return x @ WEIGHTS + EMBEDDING[ids].sum(axis=1)


class LinearEngine:
    """Answers in order of arrival; confident answers leave "early" unless ``exact`` is asked for.

    While ``gate`` is cleared nothing is answered; ``taken`` is set once an example waits behind it.
    While ``last_gate`` is cleared no early answer is followed by the final one.
    """

    num_classes = 2
    model = Model(
        "linear",
        lambda params, x, ids: x,
        {},
        (InputSpec("x", (3,), "float32"), InputSpec("ids", (2,), "int32")),
    )

    def __init__(self, queue_size=64):
        self.ready = True
        self.queue_size = queue_size
        self.submissions = []
        self.terms = []
        self.answered = 0
        self.gate = threading.Event()
        self.gate.set()
        self.taken = threading.Event()
        self.last_gate = threading.Event()
        self.last_gate.set()
        self._queue = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, inputs, *, exact=False, final=None, **terms):
        if not self._thread.is_alive():
            raise EngineClosedError("the engine is closed")
        if self._queue.qsize() >= self.queue_size:
            raise QueueFullError(f"{self.queue_size} requests wait already")
        future = Future()
        self.submissions.append(future)
        self.terms.append(terms)
        self._queue.put((inputs, exact, future, final))
        return future

    @property
    def submitted(self):
        return len(self.submissions)

    def close(self):
        self.gate.set()
        self.last_gate.set()
        self._queue.put(None)
        self._thread.join()

    def _work(self):
        while (item := self._queue.get()) is not None:
            inputs, exact, future, final = item
            self.taken.set()
            self.gate.wait()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                answer = self._answer(inputs, exact)
            except Exception as error:
                future.set_exception(error)
            else:
                self.answered += 1
                future.set_result(answer)
                self.last_gate.wait()
                if final is not None:
                    self._confirm(inputs, final)

    def _confirm(self, inputs, final):
        """What the "original" says: another label where x[2] is 7, no answer where it is 9."""
        answer = self._answer(inputs, exact=True)
        if inputs["x"][2] == 9:
            final.set_exception(NumericsError("the original's logits are not finite"))
        elif inputs["x"][2] == 7:
            final.set_result(Answer(1 - answer.label, -answer.scores, answer.error))
        else:
            final.set_result(answer)

    def _answer(self, inputs, exact):
        x, ids = inputs["x"], inputs["ids"]
        assert (x.shape, x.dtype.name, ids.shape, ids.dtype.name) == (
            (3,),
            "float32",
            (2,),
            "int32",
        )
        if x[0] == 666:
            raise RuntimeError("the device is on fire")
        scores = logits_of(x[None], ids[None])[0]
        if not np.isfinite(scores).all():
            raise NumericsError(f"the model's logits are not finite: {scores.tolist()}")
        shifted = np.exp(scores - scores.max())
        error = float(1 - shifted.max() / shifted.sum())
        label = int(scores.argmax())
        if error < EARLY_BELOW and not exact:
            return Answer(label, scores, error, "early", 0.25)
        return Answer(label, scores, error)
