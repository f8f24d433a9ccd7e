"""Checkpoints that have ramps: to serve them, and not to lose them."""

from pathlib import Path

from apparate_jax.checkpoint import Checkpoint, is_checkpoint, load_checkpoint
from apparate_jax.errors import CheckpointError
from apparate_jax.manifest import read_manifest


def trained(path: Path) -> Checkpoint:
    """A checkpoint that has ramps.

    Raises:
        CheckpointError: If it has none yet.
    """
    loaded = load_checkpoint(path)
    if not loaded.ramps:
        raise CheckpointError(
            f"the checkpoint {path} has no ramps yet: run apparate train-ramps {path} --data ..."
        )
    return loaded


def keep_trained(path: Path, replace: bool) -> None:
    """Refuse a place where trained ramps would be lost; a damaged checkpoint has none to lose.

    Args:
        path: Where a checkpoint is to be made.
        replace: Whether ramps that are there may go.

    Raises:
        CheckpointError: A whole checkpoint with ramps is there, and they may not go.
    """
    if replace or not is_checkpoint(path):
        return
    try:
        ramps = len(read_manifest(path)["ramps"])
    except CheckpointError:
        return
    if ramps:
        raise CheckpointError(
            f"the checkpoint {path} has {ramps} trained ramps, which would be lost: name another "
            "place with -o, or add --replace"
        )
