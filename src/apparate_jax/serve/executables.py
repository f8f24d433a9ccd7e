"""Executables by the text of their programs: what was compiled once is not compiled again.

Parameters are arguments of programs, so equal layers share one, and so do two models of the same
architecture: a checkpoint that takes another's place compiles nothing.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax

from apparate_jax.serve.compile_process import CompileProcess, NotPortableError

logger = logging.getLogger(__name__)

Executable = Callable[..., Sequence[jax.Array]]
Options = dict[str, str | bool] | None

_ONE_CORE: dict[str, str | bool] = {"xla_cpu_parallel_codegen_split_count": "1"}
"""XLA's options for a compiler that leaves cores to those who serve: its back end takes one."""


class Executables:
    """Compiled programs. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[bytes, Executable] = {}  # by the digest of a program's text
        self._lock = threading.Lock()
        self._told = False
        self.compiled = 0
        """Programs that were compiled here, those forgotten since included."""

    def __len__(self) -> int:
        return len(self._known)

    def get(
        self,
        run: Callable[..., Any],
        arguments: Sequence[Any],
        options: Options = None,
        child: CompileProcess | None = None,
        device: jax.Device | None = None,
    ) -> Executable:
        """The program of a function, compiled if there is none of equal text.

        Args:
            run: Of arrays.
            arguments: Arrays, or their shapes and dtypes.
            options: XLA's.
            child: Who compiles; this process if None, or if the program cannot go there.
            device: Where it is to run; JAX's default if None.

        Raises:
            CompileError: The child is gone.
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
            try:
                executable = None if child is None else child.compile(jitted, specs, options)
            except NotPortableError as error:
                options = self._here(options, error)
            if executable is None:
                with jax.default_device(device):
                    executable = lowered.compile(compiler_options=options)
            with self._lock:
                executable = self._known.setdefault(key, executable)
                self.compiled += 1
        return executable

    def _here(self, options: Options, error: NotPortableError) -> Options:
        """XLA's options for compiling here; said once, for there are as many as stages."""
        if not self._told:
            logger.warning(
                "this process compiles what its child cannot, on one of the cores that serve: %s",
                error,
            )
        self._told = True
        return {**(options or {}), **_ONE_CORE}

    def keep(self, used: Collection[Executable]) -> None:
        """Forget all others."""
        kept = {id(one) for one in used}
        with self._lock:
            self._known = {key: one for key, one in self._known.items() if id(one) in kept}
