"""Routes: the compiled programs that take a batch from its inputs to the original's answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

    def dispatch(self, ramp_params: RampParams, inputs: Sequence[Any]) -> Iterator[jax.Array]:
        """Queue every program on the device, without waiting for any.

        Yields:
            Packed answers f32[batch, 2 + classes], one per active site, then the original's, then
            one of each later head; each as soon as its program is queued, and it is on its way to
            the host when that completes.
        """
        carry: jax.Array | None = None
        kept: list[jax.Array] = []
        for segment in self.segments:
            leading = ramp_params[segment.ramp] if segment.ramp is not None else ()
            carried = (carry,) if segment.takes_carry else ()
            outputs = segment.call(*leading, *segment.constants, *carried, *inputs)
            if segment.gives_carry:
                carry = outputs[0]
                if self.later:
                    kept.append(carry)
            if segment.gives_answer:
                outputs[-1].copy_to_host_async()
                yield outputs[-1]
        for site, head in self.later:
            (answer,) = head.call(*ramp_params[site], kept[site], *inputs)
            answer.copy_to_host_async()
            yield answer
