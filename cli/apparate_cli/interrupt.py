"""A Ctrl-C that Python dropped is sent once more."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_S = 0.05
"""Time from a dropped Ctrl-C to the next try, in seconds: callbacks are over long before."""


@contextmanager
def resent() -> Iterator[None]:
    """Within it, a ``KeyboardInterrupt`` that nobody could catch arrives again.

    Python runs the handler of a signal wherever the main thread is just then. In a callback of the
    garbage collector (JAX has one) or a finalizer, what the handler raises goes to
    :func:`sys.unraisablehook` and no further: the program runs on as if no key had been pressed.
    To be entered in the main thread; the signal ends its sleep as well.
    """
    before, main = sys.unraisablehook, threading.get_ident()

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            again = threading.Timer(AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
