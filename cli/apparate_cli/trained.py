"""Checkpoints that are ready to serve: they have ramps."""

from pathlib import Path

from apparate_jax.checkpoint import Checkpoint, load_checkpoint
from apparate_jax.errors import CheckpointError


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
