"""A Ctrl-C in a place where Python drops it: once more, and nothing else is touched."""

import gc
import signal
import sys
import time

import pytest

from apparate_cli import interrupt

BOUND_S = 20


class Dropping:
    """Ctrl-C comes while it is finalized, where what the handler raises goes nowhere."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def dropped(monkeypatch):
    """What is left to the hook of before."""
    kept = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: kept.append(found.exc_type))
    return kept


def test_python_drops_it(dropped):
    """Why the module is there."""
    thing = Dropping()
    del thing
    assert dropped == [KeyboardInterrupt]


def test_in_a_finalizer(dropped):
    started = time.monotonic()
    with interrupt.resent():
        thing = Dropping()
        del thing
        with pytest.raises(KeyboardInterrupt):
            time.sleep(BOUND_S)
    assert time.monotonic() - started < BOUND_S
    assert dropped == []


def test_in_a_callback_of_the_garbage_collector(dropped):
    def callback(phase, info):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGINT)

    started = time.monotonic()
    with interrupt.resent():
        gc.callbacks.append(callback)
        gc.collect()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(BOUND_S)
    assert time.monotonic() - started < BOUND_S
    assert dropped == []


def test_other_errors_go_where_they_went(dropped):
    class Failing:
        def __del__(self):
            raise ZeroDivisionError

    before = sys.unraisablehook
    with interrupt.resent():
        thing = Failing()
        del thing
    assert dropped == [ZeroDivisionError]
    assert sys.unraisablehook is before


def test_it_knows_of_a_ctrl_c_that_became_another_error():
    before = signal.getsignal(signal.SIGINT)
    with interrupt.resent() as pressed:
        assert not pressed()
        with pytest.raises(ValueError, match="keys"):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ValueError("keys cannot be compared") from None
        assert pressed()
    assert signal.getsignal(signal.SIGINT) is before


def test_another_handler_stays():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with interrupt.resent() as pressed:
            signal.raise_signal(signal.SIGINT)
            assert not pressed()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
