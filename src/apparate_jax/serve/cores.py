"""XLA's threads on a core each, so that a batch after a pause has all of them at once.

On a CPU a batch is computed by a pool of as many threads as there are cores. Woken after a pause,
the kernel may put several on one core, and the batch takes nearly as long as on that core alone
until it spreads them: twice as long, on two cores (docs/serving.md). Pinned, each wakes on its own.

Sharp edges: the threads are found by the name that XLA gives them. A pinned thread cannot move away
from a core that somebody else takes.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from apparate_jax.errors import ConfigError

logger = logging.getLogger(__name__)

POOL = "tf_XLAEigen"
"""Name of the threads that compute a program on a CPU."""


def pin_pool() -> int:
    """Pin each thread of this process's pool to a core of those that it may use.

    Returns:
        How many threads were pinned; 0 where the model runs on an accelerator or none is found.

    Raises:
        ConfigError: The operating system cannot do it.
    """
    if sys.platform != "linux":
        raise ConfigError(
            f"pin_cores is set, and {sys.platform} does not let a thread have a core: leave it out"
        )
    if jax.devices()[0].platform != "cpu":  # which makes the pool, where there is none yet
        logger.warning("pin_cores does nothing: the model does not run on the CPU")
        return 0
    threads = pool_threads()
    if not threads:
        logger.warning("pin_cores does nothing: no thread of this process is called %r", POOL)
        return 0
    pin(threads)
    logger.info("threads that compute, each pinned to a core: %d", len(threads))
    return len(threads)


def pin(threads: Sequence[int]) -> None:
    """Give each thread a core of those that this process may use, in turn (Linux only)."""
    cores = sorted(os.sched_getaffinity(0))
    for at, thread in enumerate(threads):
        os.sched_setaffinity(thread, {cores[at % len(cores)]})


def pool_threads(pid: int | None = None) -> list[int]:
    """Ids of the threads of a process's pool, of this process's if None, ascending."""
    tasks = Path(f"/proc/{'self' if pid is None else pid}/task")
    return sorted(int(task.name) for task in tasks.iterdir() if _name_of(task) == POOL)


def _name_of(task: Path) -> str:
    try:
        return (task / "comm").read_text(encoding="utf-8").strip()
    except OSError:  # it has ended meanwhile
        return ""
