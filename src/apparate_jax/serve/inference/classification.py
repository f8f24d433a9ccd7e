"""Scores as classes: the extension "classification" of the protocol.

References:
    Triton's protocol, "Classification Extension".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def top_classes(scores: NDArray[np.float32], count: int, labels: Sequence[str]) -> NDArray[Any]:
    """The classes of the highest scores, as clients of the extension read them.

    Args:
        scores: f32[n, classes].
        count: How many classes to give; all of them if there are fewer.
        labels: Names of the classes, one each; empty when unknown.

    Returns:
        Object array ``[n, min(count, classes)]`` of ``b"score:index"`` or ``b"score:index:label"``,
        highest score first; of equal ones the lower index.

    >>> top_classes(np.array([[0.5, 2.0, 1.0]], np.float32), 2, ("no", "yes", "maybe")).tolist()
    [[b'2.000000:1:yes', b'1.000000:2:maybe']]
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    texts = np.empty(order.shape, object)
    for row, indices in enumerate(order.tolist()):
        for place, index in enumerate(indices):
            text = f"{scores[row, index]:f}:{index}"
            texts[row, place] = (f"{text}:{labels[index]}" if labels else text).encode()
    return texts
