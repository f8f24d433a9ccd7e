"""Compile without disturbing who serves: in a process of its own, at idle priority.

XLA's compiler uses every core for seconds, and on a CPU those are the model's: at two thirds of its
capacity a server on two cores falls behind by half a second, and niceness does not help, since the
compiler's threads are the process's. So programs are exported (``jax.export``), compiled by a child
and loaded from its answer, which takes tens of milliseconds. With an accelerator the compiler's
cores are not the model's, and a second process would want the device: there programs are compiled
in this one.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path

import jax
from jax import export
from jax.experimental import serialize_executable

from apparate_jax.errors import ApparateError

_WORKER = Path(__file__).with_name("compile_worker.py")


class CompileError(ApparateError, RuntimeError):
    """A program could not be compiled by the child."""


class NotPortableError(CompileError):
    """A program cannot go to the child, or what it makes of it cannot come back."""


def is_useful() -> bool:
    """Whether the model runs on the cores that a compiler would take."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1 and os.name == "posix"


class CompileProcess:
    """A child that compiles: begun by its first program, ended as a context or with us."""

    def __init__(self) -> None:
        self._connection, self._theirs = Pipe()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def _begin(self) -> None:
        with self._lock, self._theirs as theirs:
            if self._stopped:
                raise CompileError("the compiling process was stopped")
            self._process = subprocess.Popen(
                # -P: the worker's own directory has packages named as the standard library's
                [sys.executable, "-P", str(_WORKER), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Ctrl-C is for the server. A session of its own would be a scheduling group of its
                # own (sched_autogroup), with as much of the processors as the server's.
                process_group=0,
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )

    def compile(
        self,
        function: jax.stages.Wrapped,
        arguments: Sequence[jax.ShapeDtypeStruct],
        options: dict[str, str | bool] | None = None,
    ) -> jax.stages.Compiled:
        """Export a function, and have it compiled. One call at a time; it waits for the child.

        Args:
            function: ``jax.jit`` of a function of arrays, which keeps unused ones.
            arguments: Their shapes and dtypes.
            options: XLA's.

        Raises:
            CompileError: The child is gone.
            NotPortableError: The function cannot be exported, or not be compiled, or what became of
                it not be serialised.
        """
        try:
            exported = bytes(export.export(function)(*arguments).serialize())
        except (ValueError, NotImplementedError, ImportError) as error:
            raise NotPortableError(f"a program cannot be exported: {error}") from error
        try:
            if self._process is None:
                self._begin()
            self._connection.send((exported, options))
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise CompileError(
                f"the compiling process gave no program: {error or type(error).__name__}"
            ) from error
        if isinstance(answer, str):
            raise NotPortableError(f"the compiling process gave no program: {answer}")
        return serialize_executable.deserialize_and_load(*answer)  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the child, also in the middle of a program; whoever waits for that gets an error."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def __enter__(self) -> "CompileProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._process is not None:
            self._process.wait()
        self._theirs.close()
        self._connection.close()
