"""Where compiled programs are kept, and that a second process-like start finds them."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from apparate_jax.serve.cache import cache_directory, enable_compilation_cache

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """JAX's settings come back, and nothing of the user's is read."""
    for name in ("APPARATE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "~/.cache/apparate-jax/programs"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/apparate-jax/programs"),
        ({"XDG_CACHE_HOME": ""}, "~/.cache/apparate-jax/programs"),
        ({"XDG_CACHE_HOME": "/x", "APPARATE_CACHE": "/mine"}, "/mine"),
        ({"APPARATE_CACHE": ""}, "~/.cache/apparate-jax/programs"),
    ],
)
def test_the_place(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(expected).expanduser()


def test_programs_are_written_and_found_again(tmp_path):
    compilation_cache.reset_cache()
    place = tmp_path / "deep" / "programs"
    assert enable_compilation_cache(place) == place

    def fn(x):
        return (x @ x.T + 0.125).sum()

    x = np.ones((3, 5), np.float32)
    expected = float(jax.jit(fn)(x))
    written = programs_in(place)
    assert any("fn" in name for name in written), "even the quickest program"
    jax.clear_caches()
    again = float(jax.jit(fn)(x))
    assert programs_in(place) == written, "nothing was compiled again"
    assert again == expected


def programs_in(place):
    files = (path for path in place.iterdir() if not path.name.endswith("-atime"))
    return {path.name: path.read_bytes() for path in files}


def test_the_environment_chooses(tmp_path, monkeypatch):
    monkeypatch.setenv("APPARATE_CACHE", str(tmp_path / "chosen"))
    assert enable_compilation_cache() == tmp_path / "chosen"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "chosen")


def test_a_place_that_cannot_be_made_changes_nothing(tmp_path):
    (tmp_path / "file").write_text("kept")
    before = jax.config.jax_compilation_cache_dir
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert enable_compilation_cache(place) is None
    assert jax.config.jax_compilation_cache_dir == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    assert enable_compilation_cache(tmp_path) is None
