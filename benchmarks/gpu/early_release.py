"""Early answers: stages one after the other, against one program that has all of the answers.

One program is also compiled with ``individually_defined_output_indices``, an option of XLA with
which each output is ready when it was computed; where this JAX has no such option, the case says
what it answered. Command buffers hold such outputs back, so on a GPU it is also tried without.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from _sizes import Size
from _subject import Subject, is_cpu, subject_of
from _timing import Dispatch, answer_times, in_turns, route_of, staged

from apparate_jax.ramps.answer import pack_answer
from apparate_jax.ramps.heads import PARAM_NAMES, head_logits, mask_position, pool

RAMPS = 3
OPTION = "individually_defined_output_indices"


def one_program(
    subject: Subject, sites: Sequence[int], batch: int, extra: dict[str, Any]
) -> Dispatch:
    """Compile the whole model with its ramps into one program.

    Returns:
        Its dispatch, the copies of all answers to the host begun.

    Raises:
        Exception: Whatever this JAX has against the options.
    """
    program, ramps = subject.program.rebatch(batch), subject.ramps(sites)
    body, constants = program.tap_body(sites)
    mask = mask_position(subject.model)
    names = [[n for n in PARAM_NAMES if n in ramp.params] for ramp in ramps]
    heads = [ramp.params[n] for ramp, own in zip(ramps, names, strict=True) for n in own]
    split, count = len(heads), len(heads) + len(constants)

    def run(*args: Any) -> tuple[Any, ...]:
        params, inputs = iter(args[:split]), args[count:]
        *values, logits = body(args[split:count], None, *inputs)
        answers = []
        for ramp, own, value in zip(ramps, names, values, strict=True):
            pooled = pool(ramp.kind, value, None if mask is None else inputs[mask])
            answers.append(
                pack_answer(head_logits({n: next(params) for n in own}, pooled, ramp.style))
            )
        return (*answers, pack_answer(logits))

    bound = (*heads, *constants, *subject.inputs(batch))
    options = {**program.compiler_options, **extra} or None
    call = jax.jit(run, keep_unused=True).lower(*bound).compile(compiler_options=options)

    def dispatch() -> Sequence[jax.Array]:
        answers: Sequence[jax.Array] = call(*bound)
        for answer in answers:
            answer.copy_to_host_async()
        return answers

    return dispatch


def measure(size: Size, name: str, batch: int) -> dict[str, Any]:
    """When each answer is on the host, by how the model is compiled."""
    subject = subject_of(size, name)
    sites, inputs = subject.spaced(RAMPS), subject.inputs(batch)
    programs = subject.programs(sites, batch)
    for chosen in ((), sites):
        programs.warm_merged(chosen)
    ways = {
        "original": route_of(programs, (), inputs, batch),
        "stages": route_of(programs, sites, inputs, batch),
        "one program": one_program(subject, sites, batch, {}),
    }
    apart: dict[str, Any] = {OPTION: tuple(range(len(sites) + 1))}
    tried = {"outputs defined one by one": apart}
    if not is_cpu():
        tried["the same, no command buffers"] = {**apart, "xla_gpu_enable_command_buffer": ""}
    refused = {}
    for way, extra in tried.items():
        try:
            ways[way] = one_program(subject, sites, batch, extra)
        except Exception as error:  # of jaxlib's own kinds, which differ between releases
            refused[way] = f"{type(error).__name__}: {error}"[:300]
    times = in_turns({w: partial(answer_times, d) for w, d in ways.items()}, size.rounds)
    depths = [round(subject.program.sites[s].depth, 3) for s in sites]
    return {"depths": depths, **staged(times, "original"), "refused": refused}


def cases(size: Size) -> dict[str, Any]:
    """One case per model and batch."""
    return {
        f"{name}, batch {batch}": partial(measure, size, name, batch)
        for name in size.few
        for batch in size.few_batches
    }
