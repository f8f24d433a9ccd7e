"""Give memory that is not needed any more back to the system.

The C library keeps what was freed for later: after a model was loaded that is as much again as its
weights, and the next step takes its own on top. JAX keeps every program that it compiled, half a
MiB each and more.
"""

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

import jax

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_LARGE_BYTES, _USUAL_BYTES = 2**19, 2**25


def give_back(*, frozen: bool = False) -> None:
    """Give back what is not in use, compiled programs too; does nothing where the system cannot.

    Args:
        frozen: Look also at what the collector was told to leave alone (``gc.freeze``), and tell it
            so again of what is left.
    """
    jax.clear_caches()
    if frozen:
        gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()
    _c_library("malloc_trim", 0)


@contextlib.contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Blocks of half a MiB and more go back to the system when they are freed.

    For loading and saving: between parameters that stay, the buffers of files leave holes that
    nothing fits into. Not for running a model, whose buffers would be new memory in each call.
    """
    _c_library("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)
    try:
        yield
    finally:
        # What glibc arrives at by itself once large blocks were freed.
        _c_library("mallopt", _M_MMAP_THRESHOLD, _USUAL_BYTES)


def _c_library(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            getattr(ctypes.CDLL(None), function)(*arguments)
