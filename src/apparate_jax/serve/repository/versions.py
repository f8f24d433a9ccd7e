"""Which versions of a model there are on disk, and which of them are to be served.

A model's place is a checkpoint, which is its version ``1``, or a directory with a checkpoint for
each version, named by its number as in Triton and TensorFlow Serving.
"""

from collections.abc import Sequence
from pathlib import Path

from apparate_jax.checkpoint import is_checkpoint, load_checkpoint
from apparate_jax.errors import CheckpointError, ConfigError

ONLY = "1"
"""The version of a model whose place is a checkpoint itself."""


def versions_at(path: Path) -> dict[str, Path]:
    """Checkpoints by version, ascending by number.

    Raises:
        CheckpointError: There is none.
    """
    if is_checkpoint(path):
        return {ONLY: path}
    numbered = path.iterdir() if path.is_dir() else ()
    found = [one for one in numbered if one.name.isdecimal() and is_checkpoint(one)]
    if not found:
        try:
            load_checkpoint(path)  # it is none, and says best why
        except CheckpointError as error:
            raise CheckpointError(
                f"{error} (nor are there checkpoints below it in directories that are named by a "
                "version's number)"
            ) from None
    return {one.name: one for one in sorted(found, key=lambda one: int(one.name))}


def chosen(path: Path, wanted: Sequence[str], latest: int) -> dict[str, Path]:
    """The checkpoints that are to be served.

    Args:
        path: The model's place.
        wanted: Versions; if empty, the latest ones.
        latest: How many of them.

    Raises:
        CheckpointError: There is no checkpoint at all.
        ConfigError: A wanted version is not there.
    """
    found = versions_at(path)
    missing = [version for version in wanted if version not in found]
    if missing:
        raise ConfigError(
            f"{path} has no version {missing[0]!r}, expected some of {', '.join(found)}"
        )
    names = list(wanted) or list(found)[-latest:]
    return {name: found[name] for name in found if name in names}
