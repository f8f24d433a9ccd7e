"""Which ramps are active at the start: evenly spaced as the paper, or chosen on validation samples.

The paper starts with as many ramps as the budget allows, evenly spaced, and lets feedback move them
(Apparate, SOSP'24, section 3.1): :func:`place`. The ramp budget bounds what ramps add to the
latency of an input that never exits, as a share of the model's own; the memory budget bounds their
parameters.

The held-out samples of ramp training say more: :func:`place_by_validation` tunes the thresholds of
every subset of ramps on them and takes the subset that saves most, its own cost subtracted. Sharp
edge: what it says it saves is the best of many tries on few samples, so it is a ranking, not a
promise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray

from apparate_jax.core import Site
from apparate_jax.errors import ConfigError

POLICIES = ("validated", "even")


@dataclass(frozen=True, slots=True)
class PlacementConfig:
    """Budgets of the initial placement.

    Attributes:
        policy: ``"validated"``, the set that saves most on the validation samples, or ``"even"``,
            as many as the budget allows, evenly spaced (the paper's).
        ramp_budget: What all active ramps may add to the worst-case latency, as a share of it.
        memory_budget_mb: What their parameters may take, in MiB.
        max_ramps: At most this many; two or three well-placed ramps reach most of what many do.
        deepest: Sites deeper than this are left out: nothing is saved there.
    """

    policy: str = "validated"
    ramp_budget: float = 0.02
    memory_budget_mb: float = 64.0
    max_ramps: int = 3
    deepest: float = 0.97

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"policy is {self.policy!r}, expected one of {list(POLICIES)}")
        if not self.ramp_budget >= 0.0 or not 0.0 < self.deepest <= 1.0:
            raise ConfigError(
                f"ramp_budget is {self.ramp_budget} and deepest {self.deepest}, expected at least "
                "0 and within 0..1"
            )
        if self.max_ramps < 0 or not self.memory_budget_mb > 0:
            raise ConfigError(
                f"max_ramps is {self.max_ramps} and memory_budget_mb {self.memory_budget_mb}, "
                "expected at least 0 and above 0"
            )


def evenly(depths: Sequence[float], count: int) -> tuple[int, ...]:
    """``count`` of the candidates whose depths are nearest to an even spacing over 0..1.

    Args:
        depths: Depth of each candidate, ascending.
        count: How many to choose, at most as many as there are.

    Returns:
        Positions of the chosen candidates, ascending.

    >>> evenly([0.1, 0.2, 0.4, 0.6, 0.8, 0.9], 2)
    (2, 3)
    """
    values = np.asarray(depths)
    chosen: list[int] = []
    for target in (np.arange(count) + 1) / (count + 1):
        order = np.argsort(np.abs(values - target), kind="stable")
        chosen.append(next(int(i) for i in order if int(i) not in chosen))
    return tuple(sorted(chosen))


def place(
    sites: Sequence[Site],
    size_bytes: Sequence[int],
    config: PlacementConfig | None = None,
    cost_frac: Sequence[float] | None = None,
) -> tuple[int, ...]:
    """As many evenly spaced ramps as the budgets allow.

    Args:
        sites: Candidates: sites with a trained ramp, ascending.
        size_bytes: Bytes of each ramp's parameters.
        config: Budgets.
        cost_frac: What a ramp at each of them adds to the latency of an input that never exits,
            as a share of the model's own: its head and the split of the program. None before it was
            measured: the ramp budget is then checked where it is.

    Returns:
        Site indices, ascending; empty if not even one ramp fits.

    Raises:
        ConfigError: Not one size and cost per site.
    """
    config = config or PlacementConfig()
    costs = np.zeros(len(sites)) if cost_frac is None else np.asarray(cost_frac, np.float64)
    sizes = np.asarray(size_bytes, np.float64)
    if costs.shape != (len(sites),) or sizes.shape != (len(sites),):
        raise ConfigError(
            f"{len(sites)} sites, {costs.size} costs and {sizes.size} sizes: give one per site"
        )
    room = config.memory_budget_mb * 2**20
    useful = [
        i
        for i, site in enumerate(sites)
        if site.depth <= config.deepest and costs[i] <= config.ramp_budget and sizes[i] <= room
    ]
    for count in range(min(config.max_ramps, len(useful)), 0, -1):
        chosen = [useful[p] for p in evenly([sites[i].depth for i in useful], count)]
        if costs[chosen].sum() <= config.ramp_budget and sizes[chosen].sum() <= room:
            return tuple(sites[i].index for i in chosen)
    return ()


@runtime_checkable
class Tuned(Protocol):
    """What a threshold search returns."""

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """f32[R]."""
        ...

    @property
    def saving(self) -> float:
        """Saved per sample, in the unit of the savings."""
        ...

    @property
    def disagreement(self) -> float:
        """Share of samples whose answer differs from the original's."""
        ...


Tuner = Callable[[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64], float], Tuned]
"""A threshold search such as :func:`apparate_jax.tune_thresholds`: of errors f32[N, R], agreement
bool[N, R], savings f64[R] and the largest share of answers that may differ."""


class Placement(NamedTuple):
    """A set of ramps with its thresholds, and what they do on the samples that chose them.

    Attributes:
        ramps: Positions of the chosen ramps, ascending.
        thresholds: One each.
        saving: Saved per sample, the ramps' own cost subtracted; unit of the savings.
        disagreement: Share of samples whose answer differs from the original's.
    """

    ramps: tuple[int, ...]
    thresholds: tuple[float, ...]
    saving: float
    disagreement: float


def place_by_validation(
    errors: Float[np.ndarray, "samples ramps"],
    agrees: Bool[np.ndarray, "samples ramps"],
    savings: ArrayLike,
    tune: Tuner,
    *,
    max_ramps: int = 3,
    max_disagreement: float = 0.01,
    costs: ArrayLike | None = None,
    max_trials: int = 2000,
) -> Placement:
    """The subset of ramps that saves most, chosen together with its thresholds.

    Subsets grow by one ramp at a time. Each size has every subset tried, unless they are more than
    ``max_trials``: then only the best of the smaller size are extended (a beam).

    Args:
        errors: f32[N, R] on validation samples.
        agrees: bool[N, R], whether the ramp's answer is the original's.
        savings: [R], what an exit at each ramp saves, not increasing (ms, or 1 - depth).
        tune: Threshold search.
        max_ramps: Largest subset.
        max_disagreement: Share of answers that may differ.
        costs: [R], what each ramp adds to *every* answer, unit of the savings; none if left out.
        max_trials: Most subsets that are tried of one size.

    Returns:
        The best subset; an empty one with saving 0 if no ramp saves more than it costs.

    Raises:
        ConfigError: Shapes that do not fit together, or limits below 1.
    """
    gains = np.asarray(savings, np.float64)
    prices = np.zeros(gains.shape) if costs is None else np.asarray(costs, np.float64)
    ramps = errors.shape[1]
    if agrees.shape != errors.shape or gains.shape != (ramps,) or prices.shape != (ramps,):
        raise ConfigError(
            f"errors {errors.shape}, agrees {agrees.shape}, savings {gains.shape} and costs "
            f"{prices.shape}: expected [samples, ramps] twice and [ramps] twice"
        )
    if max_ramps < 1 or max_trials < 1:
        raise ConfigError(f"max_ramps {max_ramps}, max_trials {max_trials}: expected at least 1")

    def tried(subset: tuple[int, ...]) -> Placement:
        columns = list(subset)
        found = tune(errors[:, columns], agrees[:, columns], gains[columns], max_disagreement)
        net = found.saving - float(prices[columns].sum())
        return Placement(subset, tuple(map(float, found.thresholds)), net, found.disagreement)

    best = Placement((), (), 0.0, 0.0)
    kept: list[Placement] = [best]
    for _ in range(min(max_ramps, ramps)):
        grown = {tuple(sorted({*p.ramps, r})) for p in kept for r in range(ramps)}
        larger = sorted(subset for subset in grown if len(subset) == len(kept[0].ramps) + 1)
        trials = sorted(map(tried, larger), key=lambda p: -p.saving)
        if trials[0].saving > best.saving:
            best = trials[0]
        kept = trials[: max(1, max_trials // ramps)]
    return best
