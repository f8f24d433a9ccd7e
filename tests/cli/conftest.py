"""The commands through their real entry, in this process, and what they work on."""

import json
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from apparate_cli import main
from tests.cli import tiny

SAMPLES = 240
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


class Done(NamedTuple):
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        """The only line of the error, without its prefix."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and self.err.endswith(lines[0] + "\n"), self.err
        return lines[0].removeprefix("error: ")


@pytest.fixture(scope="package", autouse=True)
def programs_cache(tmp_path_factory):
    """Compiled programs are kept for these tests only; JAX's settings come back."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("programs")
        patch.setenv("APPARATE_CACHE", str(place))
        for name in ("APPARATE_DEBUG", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patch.delenv(name, raising=False)
        patch.setenv("COLUMNS", "120")
        yield place
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def _run(words, capture):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["apparate", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main.run()
    out, err = capture.readouterr()
    return Done(left.value.code or 0, out, err)


@pytest.fixture
def apparate(capsys):
    """``apparate("inspect", path)``: run a command to its end."""
    capsys.readouterr()
    return lambda *words: _run(words, capsys)


@pytest.fixture(scope="package")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="package")
def data(place):
    """Inputs of the tiny model, with labels."""
    rng = np.random.default_rng(0)
    path = place / "inputs.npz"
    x = rng.normal(size=(SAMPLES, tiny.WIDTH)).astype(np.float32)
    np.savez(path, x=x, label=rng.integers(0, tiny.CLASSES, SAMPLES))
    return path


@pytest.fixture(scope="package")
def injected(place, trained):
    """A checkpoint without ramps."""
    path = place / "injected"
    _silently("inject", tiny.REFERENCE, "-o", path)
    return path


@pytest.fixture(scope="package")
def trained(place, data):
    """A checkpoint with ramps; tests must not write to it."""
    path = place / "trained"
    _silently("inject", tiny.REFERENCE, "-o", path)
    _silently("train-ramps", path, "--data", data, "--data-frac", 1)
    return path


def _silently(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["apparate", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main.run()
    assert not left.value.code, words
