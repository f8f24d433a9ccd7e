"""The one table from exceptions to lines for people."""

import pytest

from apparate_cli import errors
from apparate_jax.errors import ModelError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModelError("unknown model"), "unknown model"),
        (FileNotFoundError(2, "No such file", "x"), "[Errno 2] No such file: 'x'"),
        (ModuleNotFoundError("No module named 'PIL'"), "an optional part is missing, pip install"),
        (MemoryError(), "out of memory"),
    ],
)
def test_what_a_user_can_act_on(error, line):
    assert line in errors.explain(error)


@pytest.mark.parametrize("error", [ValueError("x"), ZeroDivisionError(), ImportError("x")])
def test_what_only_a_traceback_explains(error):
    assert errors.explain(error) is None


@pytest.mark.parametrize(
    ("value", "asked"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)]
)
def test_tracebacks_are_asked_for(monkeypatch, value, asked):
    monkeypatch.delenv("APPARATE_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("APPARATE_DEBUG", value)
    assert errors.debugging() is asked
