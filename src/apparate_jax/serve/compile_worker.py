"""The process that compiles for a serving one; a script that knows of JAX and nothing else.

It takes ``(program, options)`` from the connection that it was given, an exported program and XLA's
options, and sends back ``(payload, in_tree, out_tree)`` of the executable, or the error as text. It
runs at idle priority: it gets what the model leaves of the processors. It ends with its parent.

JAX's persistent cache is off here: an executable that was read from it has lost its code when it is
serialised again, and whoever loads that finds functions missing at its first run.
"""

import os
import sys
from multiprocessing.connection import Connection
from typing import Any

import jax
from jax.experimental import serialize_executable


def to_idle_priority() -> None:
    """Leave the processors to whoever wants them."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def compile_program(program: bytes, options: dict[str, Any] | None) -> Any:
    """The executable of an exported program, serialised: payload, in_tree and out_tree."""
    exported = jax.export.deserialize(bytearray(program))
    lowered = jax.jit(exported.call, keep_unused=True).lower(*exported.in_avals)
    compiled = lowered.compile(compiler_options=options)
    return serialize_executable.serialize(compiled)


def main(descriptor: int) -> None:
    """Compile what comes, until the other end is closed.

    Args:
        descriptor: Of the connection.
    """
    to_idle_priority()
    jax.config.update("jax_enable_compilation_cache", False)
    with Connection(descriptor) as parent:
        while True:
            try:
                program, options = parent.recv()
            except EOFError:
                return
            try:
                parent.send(compile_program(program, options))
            except Exception as error:
                parent.send(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
