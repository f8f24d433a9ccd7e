"""A Ctrl-C that Python dropped is sent once more, and one that became another error is known."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 0.05
"""Time from a dropped Ctrl-C to the next try, in seconds: callbacks are over long before."""


@contextmanager
def resent() -> Iterator[Callable[[], bool]]:
    """Within it, a ``KeyboardInterrupt`` that nobody could catch arrives again.

    Python runs the handler of a signal wherever the main thread is just then. In a callback of the
    garbage collector (JAX has one) or a finalizer, what the handler raises goes to
    :func:`sys.unraisablehook` and no further: the program runs on as if no key had been pressed.
    To be entered in the main thread; the signal ends its sleep as well.

    Yields:
        Whether Ctrl-C was pressed so far. JAX's caches make a ``ValueError`` of whatever is raised
        while they compare keys, so an error after it may be the ``KeyboardInterrupt`` itself.
    """
    before, main = sys.unraisablehook, threading.get_ident()
    pressed = threading.Event()

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            again = threading.Timer(AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            before(unraisable)

    with _noting(pressed):
        sys.unraisablehook = hook
        try:
            yield pressed.is_set
        finally:
            sys.unraisablehook = before


@contextmanager
def _noting(pressed: threading.Event) -> Iterator[None]:
    """Set ``pressed`` before Python's own handler raises; any other handler is left alone."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
