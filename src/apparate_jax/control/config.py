"""Settings of the controller; the only place of their defaults."""

import math
from dataclasses import dataclass
from typing import Literal

from apparate_jax.control.thresholds import METHODS, Method
from apparate_jax.errors import ConfigError

Promise = Literal["long-run", "window", "none"]
PROMISES: tuple[Promise, ...] = ("long-run", "window", "none")

Policy = Literal["exact", "fixed", "paper", "artifact", "artifact-video"]
POLICIES: tuple[Policy, ...] = ("exact", "fixed", "paper", "artifact", "artifact-video")

ENOUGH_WRONG = 41
"""Wrong answers in a window by which a rate is known to about a sixth; more only take time."""


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """Settings of the controller.

    Attributes:
        accuracy: Share of answers that must equal the original model's.
        promise: What is held (docs/guarantee.md): ``"long-run"``, the share over the stream;
            ``"window"``, the share in nearly every window of 512 answers; ``"none"``, nothing.
        policy: How active ramps change: ``"exact"`` chooses sets and thresholds jointly on shadow
            batches, ``"fixed"`` keeps those of the start. ``"paper"`` is Apparate's own control of
            thresholds and ramps, ``"artifact"`` and ``"artifact-video"`` the same with the
            constants of its public code: they take ``accuracy`` and nothing else from here.
        method: Threshold search.
        window: Samples that thresholds are tuned on.
        tune_every: Samples between tunings, at least; a large window is tuned on less often.
        cooldown: Samples between a ramp's stop and the tuning that may open it again.
        shadow_every: Batches between two that also say what the inactive ramps would have answered;
            every other one until ``min_shadow`` samples are known.
        shadow_window: Samples of them that sets are chosen on.
        adjust_every: Samples between two choices of the set.
        min_shadow: Samples of shadow batches (and held-out ones) before the first choice.
        others: What freeing the device of a ms for others is worth, against a ms of one's own
            latency; 0 where no answered batch lets others go first.
        unchecked_batches: Batches whose early answers the guard keeps credit for; 1 where each is
            checked before the next one but one, more where answered batches are put off.
        hysteresis: Another set must save this share more, and more than one standard error of the
            difference, to take over.
    """

    accuracy: float = 0.99
    promise: Promise = "long-run"
    policy: Policy = "exact"
    method: Method = "exact"
    window: int = 4096
    tune_every: int = 128
    cooldown: int = 32
    shadow_every: int = 16
    shadow_window: int = 1024
    adjust_every: int = 512
    min_shadow: int = 256
    hysteresis: float = 0.03
    others: float = 1.0
    unchecked_batches: int = 3

    def __post_init__(self) -> None:
        if not 0.0 <= self.accuracy <= 1.0:
            raise ConfigError(f"accuracy is {self.accuracy}, expected a share, 0..1")
        if self.hysteresis < 0.0 or self.shadow_every < 0:
            raise ConfigError(
                f"hysteresis is {self.hysteresis} and shadow_every {self.shadow_every}, "
                "expected at least 0"
            )
        if not 0.0 <= self.others < math.inf:
            raise ConfigError(f"others is {self.others}, expected a number of at least 0")
        for name in ("tune_every", "cooldown"):
            self._within(name, self.window)
        self._within("min_shadow", self.shadow_window)
        if self.unchecked_batches < 1:
            raise ConfigError(f"unchecked_batches is {self.unchecked_batches}, expected at least 1")
        if self.adjust_every < 1:
            raise ConfigError(f"adjust_every is {self.adjust_every}, expected at least 1 sample")
        for name, allowed in (("promise", PROMISES), ("policy", POLICIES), ("method", METHODS)):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}, expected one of {list(allowed)}")

    def _within(self, name: str, most: int) -> None:
        value = getattr(self, name)
        if not 1 <= value <= most:
            raise ConfigError(f"{name} is {value}, expected 1 to the window's {most} samples")

    @property
    def samples(self) -> int:
        """Samples that thresholds are tuned on.

        :attr:`window`, or as many as hold :data:`ENOUGH_WRONG` allowed wrong ones, if fewer.
        """
        enough = ENOUGH_WRONG / max(self.max_disagreement, ENOUGH_WRONG / self.window)
        return max(min(self.window, round(enough)), self.tune_every, self.cooldown)

    @property
    def max_disagreement(self) -> float:
        """Share of answers that may differ from the original's."""
        return 1.0 - self.accuracy
