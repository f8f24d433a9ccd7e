"""Pictures in other light and framing, for ramps that will meet it.

A fixed camera sees one light for an hour and another the next, and ramps that were trained in one
are wrong in the other long before the model is. :class:`Varied` shows each picture as it is, and
then a few times with all of its grey levels times a factor and less of its edges. Labels are not
needed: what ramps learn are the model's own answers to the picture that was changed.

A picture's changes follow it at once, so whoever holds out the last rows holds out pictures that
were never seen.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.data.dataset import Dataset, Rows, named
from apparate_jax.data.image import ImageEncoder
from apparate_jax.errors import DataError

GAIN = (0.6, 1.4)
"""Range of the factor of all grey levels."""
KEPT = 0.9
"""Share of height and width that is left where the framing moves."""


class Varied:
    """Each picture of a data set as it is, and some times in a random light and framing.

    What changes depends on the seed and the row alone, not on the order of reading.
    """

    def __init__(self, data: Dataset, model: Model, times: int, seed: int = 0) -> None:
        """Wrap a data set.

        Args:
            data: Pictures, as the model takes them.
            model: How it takes them.
            times: Changes of each picture.
            seed: Of the changes.

        Raises:
            DataError: ``times`` is below 1, or the model takes no pictures.
        """
        if times < 1:
            raise DataError(f"pictures are to vary {times} times, expected at least 1")
        self.name = data.name
        self._data = data
        self._encoder = ImageEncoder(model)
        self._each = times + 1
        self._seed = seed

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """i64[count], or None."""
        labels = self._data.labels
        return None if labels is None else np.repeat(labels, self._each)

    def __len__(self) -> int:
        return len(self._data) * self._each

    def rows(self, start: int, stop: int) -> Rows:
        """Pictures ``start`` to ``stop``; each one of the data set is read once.

        Raises:
            DataError: One cannot be decoded; names the file and its row there.
        """
        stop = min(stop, len(self))
        first = start // self._each
        (pictures,) = self._data.rows(first, -(-stop // self._each))
        found = [self._row(row, pictures[row // self._each - first]) for row in range(start, stop)]
        return (self._encoder.stack(found),)

    def _row(self, row: int, picture: NDArray[Any]) -> NDArray[Any]:
        if row % self._each == 0:
            return picture
        rng = np.random.default_rng((self._seed, row))
        gain, down, right = rng.uniform(*GAIN), rng.random(), rng.random()
        return self._encoder.changed(picture, gain, KEPT, down, right)

    def example(self, row: int, model: Model) -> dict[str, NDArray[Any]]:
        """One example by input name, without the batch axis."""
        return named(model, tuple(values[0] for values in self.rows(row, row + 1)))
