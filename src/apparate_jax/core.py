"""The nouns that every package shares, without logic: site, model, plan, profile, answer.

One convention for confidence everywhere: **error = 1 - top probability**, and an answer leaves at
a ramp when its error is **strictly below** the ramp's threshold; a threshold of 0 never exits.

Units are in the names: ``_ms``, ``_s``, ``_frac`` (0..1), ``_bytes``. Arrays are described by shape
and type: ``f32[batch, classes]``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import ConfigError, ModelError

PyTree = Any
ApplyFn = Callable[..., jax.Array]

FINAL = "final"
"""Name of the exit at the end of the model: the original model's own answer."""


@dataclass(frozen=True, slots=True)
class Site:
    """A cut vertex of the model's computation where a ramp can be attached.

    Attributes:
        index: Position among the program's sites, 0 is nearest to the input.
        name: Unique name, from the module path or the user's source line.
        depth: Share of the model's cost that lies before the site, 0..1.
        shape: Shape of the value, the batch axis included.
        dtype: Name of the value's dtype, e.g. ``"float32"``.
        source: The user's source line that computes the value, ``file.py:12 (function)``.
    """

    index: int
    name: str
    depth: float
    shape: tuple[int, ...]
    dtype: str
    source: str


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model, for a single example.

    Attributes:
        name: Name under which clients and data files give it.
        shape: Shape **without** the batch axis.
        dtype: NumPy dtype name, e.g. ``"int32"``.
        low: Smallest value of example inputs.
        high: End (exclusive for integers) of the values of example inputs.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float = 0.0
    high: float = 2.0

    def example(self, batch: int, seed: int = 0) -> NDArray[Any]:
        """Random values of the right shape ``[batch, *shape]``, the same for the same seed."""
        rng = np.random.default_rng(seed)
        size = (batch, *self.shape)
        dtype = jax.numpy.dtype(self.dtype)
        if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
            return rng.integers(int(self.low), max(int(self.high), int(self.low) + 1), size).astype(
                dtype
            )
        return rng.uniform(self.low, self.high, size).astype(dtype)


@dataclass(frozen=True, slots=True)
class ImagePreprocess:
    """How a picture becomes a model's input ``f[height, width, 3]``: resize, crop, normalise.

    With a pixel's value ``x`` in 0..255, the input is ``(x - mean) / std`` per channel.

    Attributes:
        height: Of the input.
        width: Of the input.
        resize: Length of the shorter edge before the middle is cut out, in pixels; None to resize
            straight to ``height`` and ``width`` whatever the picture's proportions.
        mean: Per channel, in 0..255, in the order of ``channels``.
        std: Per channel, in 0..255.
        channels: Order of the channels.
        interpolation: Of the resizing.
    """

    height: int
    width: int
    resize: int | None = None
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    channels: Literal["rgb", "bgr"] = "rgb"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        edge = min(self.height, self.width) if self.resize is None else self.resize
        if min(self.height, self.width) < 1 or edge < max(1, min(self.height, self.width)):
            raise ConfigError(
                f"images of {self.height}x{self.width} after a resize to {self.resize}: expected "
                "at least 1 pixel, and a resize to at least the shorter edge"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            raise ConfigError(
                f"mean is {self.mean} and std {self.std}, expected 3 values each, std above 0"
            )
        if self.channels not in ("rgb", "bgr"):
            raise ConfigError(f"channels are {self.channels!r}, expected 'rgb' or 'bgr'")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ConfigError(
                f"interpolation is {self.interpolation!r}, expected 'bilinear' or 'bicubic'"
            )


@dataclass(frozen=True, slots=True)
class Model:
    """A classifier: a pure function, its parameters and a description of its inputs.

    Attributes:
        name: For people; part of reports.
        apply: ``apply(params, *inputs) -> logits f[batch, classes]``.
        params: Pytree of arrays.
        inputs: One entry per input, in the order that ``apply`` takes them; may be empty when it is
            not known (then :meth:`example_inputs` raises).
        labels: Names of the classes, empty when unknown.
        mask: Name of the input that marks valid positions of a sequence (1 valid, 0 padding), or
            ``None``.
        pooling: How the model itself pools a sequence, ``"mean"`` over valid positions, ``"first"``
            or ``"last"`` valid one; ramps follow it.
        source: How to build ``apply`` again (JSON values only); kept in checkpoints.
        assets: Files that belong to the model (a tokenizer), by file name; kept in checkpoints.
        image: How pictures become its input, for a model of one input that takes them; kept in
            checkpoints.
        channels: Where the model keeps the channels of values over space, last as Flax does or
            first (after the batch); ramps follow it.
    """

    name: str
    apply: ApplyFn
    params: PyTree
    inputs: tuple[InputSpec, ...] = ()
    labels: tuple[str, ...] = ()
    mask: str | None = None
    pooling: Literal["mean", "first", "last"] = "mean"
    source: Mapping[str, Any] = field(default_factory=dict)
    assets: Mapping[str, bytes] = field(default_factory=dict)
    image: ImagePreprocess | None = None
    channels: Literal["last", "first"] = "last"

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.inputs]
        if self.mask is not None and names and self.mask not in names:
            raise ModelError(
                f"the mask input is {self.mask!r}, but the model's inputs are {names}: "
                "name one of them, or leave the mask out"
            )

    def example_inputs(self, batch: int) -> tuple[NDArray[Any], ...]:
        """Random inputs ``[batch, ...]`` in the order that ``apply`` takes them.

        Raises:
            ModelError: If the inputs of this model are not described.
        """
        if not self.inputs:
            raise ModelError(
                f"the inputs of {self.name!r} are not described: give inputs=[InputSpec(...), ...] "
                "(or example arrays) where the model is made"
            )
        if batch < 1:
            raise ModelError(f"batch is {batch}, expected at least 1")
        return tuple(spec.example(batch, seed) for seed, spec in enumerate(self.inputs))


@dataclass(frozen=True, slots=True)
class ExitPlan:
    """Which ramps run, and below which error an answer leaves there.

    Attributes:
        sites: Indices of the active sites, ascending; empty is the original model.
        thresholds: One per active site, 0..1; 0 never exits.
        exit_cap: How many answers may have left early since the engine started, in total; None is
            no limit. A controller that knows how many of them were checked bounds with it how many
            unchecked ones there are.
        shadow_every: Every so many batches one also says what the inactive ramps would have
            answered, once its own answers have left; 0 is never.
        worth: What exits save per input, as a multiple of what the ramps add to a batch.
    """

    sites: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()
    exit_cap: int | None = None
    shadow_every: int = 0
    worth: float = math.inf

    def __post_init__(self) -> None:
        if list(self.sites) != sorted(set(self.sites)):
            raise ConfigError(f"sites are {self.sites}, expected ascending and without repetition")
        if len(self.sites) != len(self.thresholds):
            raise ConfigError(
                f"{len(self.sites)} active sites but {len(self.thresholds)} thresholds: "
                "give one threshold per active site"
            )
        if not all(0.0 <= t <= 1.0 for t in self.thresholds):
            raise ConfigError(f"thresholds are {self.thresholds}, expected values in 0..1")
        if not self.worth >= 0.0:
            raise ConfigError(f"worth is {self.worth}, expected at least 0")
        if self.shadow_every < 0:
            raise ConfigError(f"shadow_every is {self.shadow_every}, expected at least 0 batches")

    @staticmethod
    def closed(sites: Sequence[int]) -> "ExitPlan":
        """The plan in which all of ``sites`` run and nothing exits (thresholds 0)."""
        return ExitPlan(tuple(sites), (0.0,) * len(sites))


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """Measured latency of one batch shape on the device that serves.

    Attributes:
        batch: Batch size of the shape.
        vanilla_ms: The original model as one program, dispatch to answer on the host.
        total_ms: The staged model with its active ramps, dispatch to final answer on the host.
        release_ms: Per active ramp, dispatch to that ramp's output on the host.
        site_ms: For every site, the time of the atomic stages up to it, each run alone.
        ramp_ms: For every site, the time of its head alone.
        tail_ms: The time of the atomic stage after the last site, run alone.
        spread: How single runs differ: times of the original model over ``vanilla_ms``, ascending,
            each as likely as the others; empty where that was not measured.
    """

    batch: int
    vanilla_ms: float
    total_ms: float
    release_ms: tuple[float, ...]
    site_ms: tuple[float, ...]
    ramp_ms: tuple[float, ...]
    tail_ms: float = 0.0
    spread: tuple[float, ...] = ()

    @property
    def overhead_frac(self) -> float:
        """What staging and ramps add to an input that never exits, as a share of vanilla."""
        return self.total_ms / self.vanilla_ms - 1.0

    @property
    def savings_ms(self) -> tuple[float, ...]:
        """Per active ramp, the time between its output and the final answer."""
        return tuple(max(self.total_ms - ms, 0.0) for ms in self.release_ms)


@dataclass(frozen=True, slots=True)
class Profile:
    """Latency of a set of active ramps, per batch shape, with the device's name.

    Attributes:
        device: Name of the device, as JAX gives it, and the number of host cores for a CPU.
        jax_version: Version of JAX that compiled the programs.
        sites: The active sites that ``release_ms`` and ``total_ms`` stand for.
        shapes: One entry per batch shape, ascending.
        handling_ms: What the engine adds to the device's time of a single input while nothing else
            waits: forming the batch, handing it over, waking threads, resolving the answer.
        rest_ms: Idle times of the device before a batch, ascending from 0; empty if not measured.
        rest_factors: By how much a batch takes longer after each of them.
        hold_ms: What it adds to the end of a batch to queue what is behind its last ramp only once
            that ramp's answers were read; 0 if not measured.
    """

    device: str
    jax_version: str
    sites: tuple[int, ...]
    shapes: tuple[ShapeProfile, ...]
    handling_ms: float = 0.0
    rest_ms: tuple[float, ...] = ()
    rest_factors: tuple[float, ...] = ()
    hold_ms: float = 0.0

    def at(self, batch: int) -> ShapeProfile:
        """The smallest profiled shape that holds ``batch`` inputs (the largest one otherwise)."""
        return next((s for s in self.shapes if s.batch >= batch), self.shapes[-1])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets, early or at the end.

    Attributes:
        label: Predicted class.
        scores: Logits ``f32[classes]`` that the answer rests on (the ramp's, or the original's).
        error: 1 - top probability of those logits.
        exit: Name of the site where the answer left, or ``"final"``.
        exit_depth: Depth of that site, 1 at the end.
    """

    label: int
    scores: NDArray[np.float32]
    error: float
    exit: str = FINAL
    exit_depth: float = 1.0


@dataclass(frozen=True, slots=True)
class ShadowAnswers:
    """What every trained ramp would have answered to a batch of ``n`` inputs.

    Attributes:
        sites: Sites with a trained ramp, S of them, ascending.
        errors: f32[n, S].
        predictions: i32[n, S].
    """

    sites: tuple[int, ...]
    errors: NDArray[np.float32]
    predictions: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What is known of a batch once the original model has answered it too.

    ``n`` is the number of real inputs, ``R`` the number of active ramps. Times are seconds of the
    monotonic clock that the engine was given.

    Attributes:
        sites: Active sites, R of them.
        shape: Padded batch size.
        arrived_s: f64[n], when each input was submitted.
        dispatched_s: When the batch was handed to the device.
        released_s: f64[n], when each answer was given.
        finished_s: When the original model's answers were on the host.
        exits: i32[n], position of the ramp that answered, R for the original model.
        errors: f32[n, R].
        predictions: i32[n, R].
        final_predictions: i32[n], the original model's.
        lost: Further answers that left early, for which the original model has none to compare.
        shadow: Answers of all ramps, where the batch was a shadow batch.
        ready_s: f64[R], when each ramp's answers were on the host.
        traces: Spans of the inputs' requests, n of them, or none at all where nobody traces.
        deferred_s: How long its rest waited for others, once all of its inputs were answered.
    """

    sites: tuple[int, ...]
    shape: int
    arrived_s: NDArray[np.float64]
    dispatched_s: float
    released_s: NDArray[np.float64]
    finished_s: float
    exits: NDArray[np.int32]
    errors: NDArray[np.float32]
    predictions: NDArray[np.int32]
    final_predictions: NDArray[np.int32]
    lost: int = 0
    shadow: ShadowAnswers | None = None
    ready_s: tuple[float, ...] = ()
    traces: tuple[object | None, ...] = ()
    deferred_s: float = 0.0

    @property
    def took_s(self) -> float:
        """From its hand-over to the original's answers, without what it waited for others."""
        return self.finished_s - self.dispatched_s - self.deferred_s

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """bool[n, R]: whether each ramp's prediction equals the original model's."""
        agrees: NDArray[np.bool_] = self.predictions == self.final_predictions[:, None]
        return agrees

    @property
    def released_right(self) -> NDArray[np.bool_]:
        """bool[n]: whether the answer that was given equals the original model's."""
        given = np.concatenate([self.predictions, self.final_predictions[:, None]], axis=1)
        chosen = given[np.arange(len(self.exits)), self.exits]
        right: NDArray[np.bool_] = chosen == self.final_predictions
        return right
