"""JAX's persistent compilation cache, in the user's cache directory."""

import os
from pathlib import Path

import jax


def cache_directory() -> Path:
    """Where compiled programs are kept: ``APPARATE_CACHE``, else the user's cache directory."""
    chosen = os.environ.get("APPARATE_CACHE")
    if chosen:
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "apparate-jax" / "programs"


def enable_compilation_cache(directory: Path | None = None) -> Path | None:
    """Keep compiled programs across runs; a second start then takes seconds.

    Args:
        directory: Where to keep them; :func:`cache_directory` unless given.

    Returns:
        The directory, or None if it cannot be written (then programs are compiled every time).
    """
    target = directory or cache_directory()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(target, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(target))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return target
