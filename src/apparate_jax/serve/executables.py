"""Executables by the text of their programs: what was compiled once is not compiled again.

Parameters are arguments of programs, so equal layers share one, and so do two models of the same
architecture: a checkpoint that takes another's place compiles nothing.
"""

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax

from apparate_jax.serve.compile_process import CompileProcess

Executable = Callable[..., Sequence[jax.Array]]


class Executables:
    """Compiled programs. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[bytes, Executable] = {}  # by the digest of a program's text
        self._lock = threading.Lock()
        self.compiled = 0
        """Programs that were compiled here, those forgotten since included."""

    def __len__(self) -> int:
        return len(self._known)

    def get(
        self,
        run: Callable[..., Any],
        arguments: Sequence[Any],
        options: dict[str, str | bool] | None = None,
        child: CompileProcess | None = None,
        device: jax.Device | None = None,
    ) -> Executable:
        """The program of a function, compiled if there is none of equal text.

        Args:
            run: Of arrays.
            arguments: Arrays, or their shapes and dtypes.
            options: XLA's.
            child: Who compiles; this process if None.
            device: Where it is to run; JAX's default if None.

        Raises:
            CompileError: The child could not.
        """
        specs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments]
        jitted = jax.jit(run, keep_unused=True)
        with jax.default_device(device):
            lowered = jitted.lower(*specs)
        text = "\n".join((lowered.as_text(), str(options), str(device), *map(str, specs)))
        key = hashlib.sha256(text.encode()).digest()
        with self._lock:
            executable = self._known.get(key)
        if executable is None:
            if child is None:
                with jax.default_device(device):
                    executable = lowered.compile(compiler_options=options)
            else:
                executable = child.compile(jitted, specs, options)
            with self._lock:
                executable = self._known.setdefault(key, executable)
                self.compiled += 1
        return executable

    def keep(self, used: Collection[Executable]) -> None:
        """Forget all others."""
        kept = {id(one) for one in used}
        with self._lock:
            self._known = {key: one for key, one in self._known.items() if id(one) in kept}
