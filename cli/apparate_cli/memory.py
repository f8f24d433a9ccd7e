"""Give memory that was freed back to the system.

The C library keeps what was freed for later: after a model was loaded that is as much again as its
weights, and the next step takes its own on top.
"""

import contextlib
import ctypes
import gc
import sys


def give_back() -> None:
    """Give back what is not in use; does nothing where the C library cannot."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
