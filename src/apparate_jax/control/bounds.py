"""How many wrong answers a window may show for its thresholds to be trusted at a rate.

With ``n`` independent samples at a true rate ``p``, the chance of seeing at most ``k`` wrong ones
is the binomial distribution function. Clopper and Pearson's upper bound of the rate is at most
``p`` exactly where that chance is at most ``delta`` (Clopper and Pearson, 1934, Biometrika 26).

Sharp edge: thresholds are tuned on the same samples, so the bound is a little optimistic for them:
it keeps a fresh window from being trusted too soon, the guard holds the promise.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr  # type: ignore[import-untyped]


def trusted_budgets(
    samples: int, rates: Sequence[float] | NDArray[np.float64], delta: float
) -> NDArray[np.int64]:
    """The most wrong answers in a window whose upper bound is at most each rate.

    Args:
        samples: Samples in the window, n.
        rates: f[K], allowed true rates, 0..1.
        delta: Chance that a true rate above passes, 0..1.

    Returns:
        i64[K], -1 where not even a clean window can be trusted.

    >>> trusted_budgets(2048, [0.01], 0.05), trusted_budgets(200, [0.01], 0.05)
    (array([12]), array([-1]))
    """
    wanted = np.asarray(rates, np.float64)
    most = int(np.ceil(wanted.max(initial=0.0) * samples)) if samples else 0
    chance = bdtr(np.arange(most + 1)[:, None], samples, wanted[None])
    budgets: NDArray[np.int64] = (chance <= delta).sum(axis=0) - 1
    return np.where(wanted >= 1.0, samples, budgets) if samples else np.full(wanted.shape, -1)
