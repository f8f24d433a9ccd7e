"""Routes: the compiled programs that take a batch from its inputs to the original's answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

RampParams = Mapping[int, tuple[jax.Array, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One compiled program of a route.

    Attributes:
        call: The executable: ``(*ramp parameters, *constants, [carry], *inputs) -> outputs``.
        constants: Parameters that are bound to it.
        takes_carry: Whether the previous segment's carry is an argument.
        gives_carry: Whether its first output is the carry for the next segment.
        ramp: The site whose ramp parameters lead the arguments, None without a ramp.
        gives_answer: Whether its last output is a packed answer.
    """

    call: Callable[..., Sequence[jax.Array]]
    constants: tuple[jax.Array, ...]
    takes_carry: bool
    gives_carry: bool
    ramp: int | None
    gives_answer: bool


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """The programs that take one batch shape from inputs to the final answer.

    Attributes:
        sites: Active sites, in the order in which their answers come.
        batch: Batch shape.
        merged: Whether the stages between active ramps are single programs.
        segments: In execution order.
        later: Sites and heads that run once the original's answer is queued, on the values of
            those sites: of atomic stages only.
    """

    sites: tuple[int, ...]
    batch: int
    merged: bool
    segments: tuple[Segment, ...]
    later: tuple[tuple[int, Segment], ...] = ()

    def behind(self, ramps: int) -> int:
        """Place of the first program behind so many ramps'; 0 behind none."""
        places = [i for i, segment in enumerate(self.segments, 1) if segment.ramp is not None]
        return places[ramps - 1] if ramps else 0

    def start(self, ramp_params: RampParams, inputs: Sequence[Any]) -> "Course":
        """A batch at the start of this route; nothing is queued yet."""
        return Course(self, ramp_params, inputs)

    def dispatch(self, ramp_params: RampParams, inputs: Sequence[Any]) -> Iterator[jax.Array]:
        """Queue every program on the device, without waiting for any.

        Yields:
            What :meth:`Course.answers` does.
        """
        return self.start(ramp_params, inputs).answers()


@dataclass(slots=True, eq=False)
class Course:
    """A batch on its way along a route.

    Attributes:
        route: Its programs.
        ramp_params: By site.
        inputs: On the device.
        queued: Programs of the route that are on the device's queue, those of later heads included.
        carry: What the last of them gave to the next.
    """

    route: Route
    ramp_params: RampParams
    inputs: Sequence[Any]
    queued: int = 0
    carry: jax.Array | None = None
    _kept: list[jax.Array] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Programs that are not queued yet."""
        return len(self.route.segments) + len(self.route.later) - self.queued

    def rest(self, ramps: int) -> int:
        """Programs behind so many ramps', queued or not."""
        return len(self.route.segments) + len(self.route.later) - self.route.behind(ramps)

    def answers(self, stop: int | None = None) -> Iterator[jax.Array]:
        """Queue what is left, program by program, without waiting for any.

        Args:
            stop: Place of the first program that is not queued yet; None for all.

        Yields:
            Packed answers f32[batch, 2 + classes], one per active site, then the original's, then
            one of each later head; each as soon as its program is queued, and it is on its way to
            the host when that completes.
        """
        while self.left and self.queued != stop:
            answer = self.step()
            if answer is not None:
                yield answer

    def step(self) -> jax.Array | None:
        """Queue the next program; its packed answer if it gives one."""
        place = self.queued
        self.queued += 1
        if place >= len(self.route.segments):
            site, head = self.route.later[place - len(self.route.segments)]
            (answer,) = head.call(*self.ramp_params[site], self._kept[site], *self.inputs)
            answer.copy_to_host_async()
            return answer
        segment = self.route.segments[place]
        leading = self.ramp_params[segment.ramp] if segment.ramp is not None else ()
        carried = (self.carry,) if segment.takes_carry else ()
        outputs = segment.call(*leading, *segment.constants, *carried, *self.inputs)
        if segment.gives_carry:
            self.carry = outputs[0]
            if self.route.later:
                self._kept.append(outputs[0])
        if not segment.gives_answer:
            return None
        outputs[-1].copy_to_host_async()
        return outputs[-1]

    def go_on_by(self, route: Route) -> None:
        """Take another route from the ramp on to which this one was followed.

        Args:
            route: Of the same sites and batch shape.
        """
        passed = sum(segment.ramp is not None for segment in self.route.segments[: self.queued])
        self.route, self.queued = route, route.behind(passed)
