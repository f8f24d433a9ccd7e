"""Compiling in another process: what comes back is the program, and every failure is an error."""

import sys
import threading
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.serve.compile_process import CompileError, CompileProcess, NotPortableError
from apparate_jax.serve.executables import Executables
from tests.serve import models

ARGUMENTS = [jax.ShapeDtypeStruct((2, 3), jnp.float32), jax.ShapeDtypeStruct((3,), jnp.int32)]
FUNCTION = jax.jit(lambda x, unused: (jnp.tanh(x) @ x.T,), keep_unused=True)


@pytest.fixture(scope="module")
def child():
    with CompileProcess() as process:
        yield process


def test_a_program_that_another_process_compiled_gives_the_same_values(child):
    values = jnp.arange(6.0).reshape(2, 3), jnp.zeros(3, jnp.int32)
    (found,) = child.compile(FUNCTION, ARGUMENTS)(*values)
    np.testing.assert_array_equal(found, FUNCTION(*values)[0])


def test_without_what_jax_exports_with_a_program_is_not_portable(child, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax._src.export.serialization", None)
    with pytest.raises(NotPortableError, match="cannot be exported"):
        child.compile(FUNCTION, ARGUMENTS)


def test_what_jax_exports_with_is_installed_with_us():
    project = Path(__file__).parents[2] / "pyproject.toml"
    needed = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert any(one.startswith("flatbuffers") for one in needed), "jax.export needs it"


def test_a_program_that_was_compiled_before_runs_too(tmp_path):
    """With a persistent cache that has it already: then it must not be taken from there."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    table, ids = jnp.ones((3000, 64)), jnp.ones((1, 8), jnp.int32)
    function = jax.jit(lambda t, i: (jnp.tanh(t[i].sum(1) @ t.T[:, :64]),), keep_unused=True)
    try:
        for name, value in options.items():
            jax.config.update(name, value)
        for _ in range(2):
            with CompileProcess() as process:
                (found,) = process.compile(function, [table, ids])(table, ids)
                np.testing.assert_allclose(found, np.tanh(np.full((1, 64), 8.0 * 64)))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_what_cannot_be_compiled_is_an_error_that_says_why_and_the_child_goes_on(child):
    with pytest.raises(CompileError, match="no_such_option"):
        child.compile(FUNCTION, ARGUMENTS, {"no_such_option": True})
    assert child.compile(FUNCTION, ARGUMENTS) is not None


def test_what_cannot_be_exported_is_an_error(child):
    def calls_back(x):
        return jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct((2, 3), jnp.float32), x)

    with pytest.raises(NotPortableError):
        child.compile(jax.jit(calls_back, keep_unused=True), ARGUMENTS[:1])


def test_what_the_child_cannot_compile_is_compiled_here_and_said_once(caplog):
    """The model's last layer calls the host back, which no executable takes to another process."""
    gate = threading.Event()
    gate.set()
    made = models.programs(models.gated(gate), (1, 2), gently=True)
    made.warm_atomic()
    made.prepare((0,)).result(60)
    assert made.route((0,), 1).merged and made.route((0,), 2).merged
    made.close()
    (record,) = caplog.records
    assert "this process compiles what its child cannot" in record.getMessage()


def test_a_child_that_is_gone_is_not_replaced_by_this_process():
    made = Executables()
    with CompileProcess() as process:
        process.stop()
        with pytest.raises(CompileError, match="was stopped"):
            made.get(lambda x: (x,), ARGUMENTS[:1], child=process)
    assert made.compiled == 0


def test_no_child_is_begun_for_nothing():
    with CompileProcess() as process:
        assert process._process is None
    with pytest.raises(CompileError, match="was stopped"):
        process.compile(FUNCTION, ARGUMENTS)


def test_a_child_that_is_gone_is_an_error():
    with CompileProcess() as process:
        process.compile(FUNCTION, ARGUMENTS)
        process.stop()
        with pytest.raises(CompileError):
            process.compile(FUNCTION, ARGUMENTS)
