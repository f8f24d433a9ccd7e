"""Latency of stages and ramps, measured on the device that serves.

The controller needs to know what an exit saves and what a ramp costs. Both are measured at warm-up,
per batch shape, on the very programs that serve: the original model and the staged one in turn, so
that a busy neighbour slows both; medians over the rounds, after dropping the slowest of them. How
single runs spread around that is kept for replay, and so is what the engine itself adds to them.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Profile, ShapeProfile
from apparate_jax.errors import CheckpointError
from apparate_jax.serve.engine import Engine
from apparate_jax.serve.programs import Programs, Progress
from apparate_jax.serve.route import Route

PROFILE = "profile.json"
"""File in a checkpoint's directory with the last profile that was measured of it."""

Times = NDArray[np.float64]

MIN_ROUNDS = 7
MAX_ROUNDS = 40
REST_MS = (0.0, 10.0, 30.0, 60.0, 120.0)
"""Rests of the device after which a batch is timed."""
OUTLIER_FRAC = 0.2
"""Share of the slowest rounds that is dropped before the median is taken."""
SPREAD = 8
"""Quantiles that stand for how single runs spread."""


def device_name() -> str:
    """The device that programs run on, with the host's processor where it is the CPU."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.device_kind} ({device.platform})"
    return f"cpu, {_cpu_model()}, {os.cpu_count()} cores"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def measure(
    programs: Programs,
    sites: Sequence[int],
    *,
    budget_s: float = 1.0,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Measure the original model, the staged one, and every atomic stage and head.

    Args:
        programs: Warmed programs: atomic ones, and merged ones for ``sites`` and for no site.
        sites: Active sites.
        budget_s: Time to spend per batch shape and kind of measurement.
        progress: Called after each batch shape.
        clock: Seconds, of the highest resolution there is.

    Returns:
        Medians in milliseconds, dispatch to host, per batch shape.
    """
    active = tuple(sites)
    shapes = []
    for done, batch in enumerate(programs.batch_sizes, 1):
        shapes.append(_measure_shape(programs, active, batch, budget_s, clock))
        if progress is not None:
            progress(done, len(programs.batch_sizes), f"batch {batch} measured")
    return Profile(
        device_name(),
        jax.__version__,
        active,
        tuple(shapes),
        handling_ms=_handling_ms(programs, budget_s, clock),
        hold_ms=_hold_ms(programs, active, budget_s, clock) if active else 0.0,
    )


def _measure_shape(
    programs: Programs, sites: tuple[int, ...], batch: int, budget_s: float, clock: Any
) -> ShapeProfile:
    inputs = jax.device_put(programs.example_inputs(batch), programs.device)
    every = programs.route(tuple(programs.ramps), batch)
    pair = _measure_pair(programs, sites, batch, budget_s, clock)
    alone = _medians(
        _rounds(lambda: _segment_times(programs, batch, inputs, clock), budget_s, clock)
    )
    count = len(programs.sites)
    stages, tail_ms, heads = alone[:count], alone[count], alone[count + 1 :]
    by_site = dict(zip(every.sites, heads, strict=True))
    return ShapeProfile(
        batch=batch,
        **pair._asdict(),
        site_ms=tuple(np.cumsum(stages).tolist()),
        ramp_ms=tuple(by_site.get(site.index, 0.0) for site in programs.sites),
        tail_ms=tail_ms,
    )


class _Pair(NamedTuple):
    """The fields of a :class:`ShapeProfile` that compare the staged model with the original."""

    vanilla_ms: float
    total_ms: float
    release_ms: tuple[float, ...]
    spread: tuple[float, ...]


def _measure_pair(
    programs: Programs, sites: tuple[int, ...], batch: int, budget_s: float, clock: Any
) -> _Pair:
    inputs = jax.device_put(programs.example_inputs(batch), programs.device)
    vanilla, staged = programs.route((), batch), programs.route(sites, batch)
    both = _rounds(
        lambda: [
            *answer_times(vanilla, programs, inputs, clock),
            *answer_times(staged, programs, inputs, clock),
        ],
        budget_s,
        clock,
    )
    vanilla_ms, *release_ms, total_ms = _medians(both)
    return _Pair(vanilla_ms, total_ms, tuple(release_ms), _spread(both[:, 0], vanilla_ms))


def measure_again(
    programs: Programs,
    profile: Profile,
    *,
    budget_s: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """The profile with its ramps held against the original anew; what stages take alone stays.

    Args:
        programs: Those that the profile is of.
        profile: As :func:`measure` returned it.
        budget_s: Time to spend per batch shape.
        clock: Seconds, of the highest resolution there is.
    """
    shapes = [
        replace(
            shape,
            **_measure_pair(programs, profile.sites, shape.batch, budget_s, clock)._asdict(),
        )
        for shape in profile.shapes
    ]
    return replace(profile, shapes=tuple(shapes))


def _spread(times_ms: Times, median_ms: float) -> tuple[float, ...]:
    shares = (np.arange(SPREAD) + 0.5) / SPREAD
    return tuple((np.quantile(times_ms, shares) / median_ms).tolist())


def _handling_ms(programs: Programs, budget_s: float, clock: Any) -> float:
    """What an idle engine adds to one input: its answer's time less that of the program alone."""
    batch = programs.batch_sizes[0]
    inputs = programs.example_inputs(batch)
    on_device, route = jax.device_put(inputs, programs.device), programs.route((), batch)
    names = [spec.name for spec in programs.model.inputs]
    example = {name: values[0] for name, values in zip(names, inputs, strict=True)}

    def both() -> list[float]:
        (alone,) = answer_times(route, programs, on_device, clock)
        start = clock()
        engine.submit(example).exception()
        served = (clock() - start) * 1e3
        engine.wait_idle()
        return [alone, served, served - alone]

    with Engine(programs) as engine:
        return max(0.0, _medians(_rounds(both, budget_s, clock))[2])


def _hold_ms(
    programs: Programs, sites: tuple[int, ...], budget_s: float, clock: Callable[[], float]
) -> float:
    """What it adds to one input to wait for the last ramp's answers before the rest is queued."""
    batch = programs.batch_sizes[0]
    route = programs.route(sites, batch)
    inputs = jax.device_put(programs.example_inputs(batch), programs.device)

    def both() -> list[float]:
        *_, at_once = answer_times(route, programs, inputs, clock)
        *_, held = answer_times(route, programs, inputs, clock, hold=True)
        return [at_once, held, held - at_once]

    return max(0.0, _medians(_rounds(both, budget_s, clock))[2])


def rested(
    programs: Programs, profile: Profile, *, clock: Callable[[], float] = time.perf_counter
) -> Profile:
    """The profile with how much slower the device is after a rest, which it measures now.

    A processor that had nothing to do lowers its clock and sleeps: on one machine a model of 20 ms
    took 38 ms after 100 ms of rest. Replay needs that, serving does not.
    """
    batch = programs.batch_sizes[0]
    inputs, route = (
        jax.device_put(programs.example_inputs(batch), programs.device),
        programs.route((), batch),
    )

    def after_each() -> list[float]:
        for _ in range(3):  # the first rest is none: the device has just worked
            answer_times(route, programs, inputs, clock)
        times = []
        for rest_ms in REST_MS:
            time.sleep(rest_ms / 1e3)
            times.extend(answer_times(route, programs, inputs, clock))
        return times

    medians = np.median([after_each() for _ in range(MIN_ROUNDS)], axis=0)
    factors = np.maximum.accumulate(medians / medians[0])
    return replace(profile, rest_ms=REST_MS, rest_factors=tuple(factors.tolist()))


def _rounds(run: Callable[[], list[float]], budget_s: float, clock: Any) -> Times:
    """What ``run`` gives in each of the rounds that fit the budget: f64[rounds, columns]."""
    run()
    rows: list[list[float]] = []
    start = clock()
    while len(rows) < MIN_ROUNDS or (clock() - start < budget_s and len(rows) < MAX_ROUNDS):
        rows.append(run())
    return np.asarray(rows)


def _medians(rounds: Times) -> list[float]:
    """Medians of each column, without the slowest rounds."""
    kept = np.sort(rounds, axis=0)[: max(1, round(len(rounds) * (1 - OUTLIER_FRAC)))]
    medians: list[float] = np.median(kept, axis=0).tolist()
    return medians


def answer_times(
    route: Route,
    programs: Programs,
    inputs: Any,
    clock: Callable[[], float] = time.perf_counter,
    *,
    hold: bool = False,
) -> list[float]:
    """Milliseconds from dispatch to each of a route's answers on the host.

    Args:
        route: Its programs.
        programs: For the parameters of their ramps.
        inputs: On the device.
        clock: Seconds.
        hold: Queue what is behind the last ramp once that one's answers were read, as the engine
            does where it may defer it; else all at once.
    """
    start = clock()
    times = []
    course = route.start(programs.ramp_params, inputs)
    for stop in (route.behind(len(route.sites)), None) if hold else (None,):
        for answer in list(course.answers(stop)):
            np.asarray(answer)
            times.append((clock() - start) * 1e3)
    return times


def _segment_times(programs: Programs, batch: int, inputs: Any, clock: Any) -> list[float]:
    """Each atomic stage, the last one too, then each head, run alone."""
    stages, heads = [], []
    carry = None
    for segment in programs.atomic_segments(batch):
        leading = programs.ramp_params[segment.ramp] if segment.ramp is not None else ()
        carried = (carry,) if segment.takes_carry else ()
        start = clock()
        outputs = segment.call(*leading, *segment.constants, *carried, *inputs)
        jax.block_until_ready(outputs)
        elapsed = (clock() - start) * 1e3
        if segment.ramp is not None:
            heads.append(elapsed)
        else:
            stages.append(elapsed)
        carry = outputs[0] if segment.gives_carry else carry
    return [*stages, *heads]


def save_profile(profile: Profile, path: Path) -> None:
    """Write a profile as JSON; a file that is there is replaced whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(asdict(profile), indent=1), encoding="utf-8")
    partial.replace(path)


def keep_profile(profile: Profile, checkpoint: Path) -> bool:
    """Leave a profile in its checkpoint's directory, for ``apparate inspect``.

    Returns:
        Whether it could be written: a checkpoint may well lie where nobody may write.
    """
    try:
        save_profile(profile, checkpoint / PROFILE)
    except OSError:
        return False
    return True


def profile_from_json(raw: Any) -> Profile:
    """A profile from what :func:`dataclasses.asdict` made of it, through JSON.

    Raises:
        KeyError: A field is missing.
    """
    shapes = tuple(
        ShapeProfile(
            batch=shape["batch"],
            vanilla_ms=shape["vanilla_ms"],
            total_ms=shape["total_ms"],
            release_ms=tuple(shape["release_ms"]),
            site_ms=tuple(shape["site_ms"]),
            ramp_ms=tuple(shape["ramp_ms"]),
            tail_ms=shape["tail_ms"],
            spread=tuple(shape.get("spread", ())),
        )
        for shape in raw["shapes"]
    )
    return Profile(
        raw["device"],
        raw["jax_version"],
        tuple(raw["sites"]),
        shapes,
        raw.get("handling_ms", 0.0),
        tuple(raw.get("rest_ms", ())),
        tuple(raw.get("rest_factors", ())),
        raw.get("hold_ms", 0.0),
    )


def load_profile(path: Path) -> Profile:
    """Read a profile that :func:`save_profile` wrote.

    Raises:
        CheckpointError: If the file is no profile.
    """
    try:
        raw = json.loads(path.read_text())
        return profile_from_json(raw)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no profile ({error}): delete it, it is measured again at the next start"
        ) from error
