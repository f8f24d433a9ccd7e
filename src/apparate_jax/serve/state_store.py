"""Where a server keeps its controller's state: one file, replaced whole, read back after a crash.

What was learnt since the last save is lost in a crash, and so is what the guard counted in those
seconds: the promise is then about the answers before that save and after the start.
"""

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apparate_jax.control import saved
from apparate_jax.errors import StateError
from apparate_jax.manifest import sync

logger = logging.getLogger(__name__)

EVERY_S = 5.0
"""Seconds between two saves."""


class StateStore:
    """Keeps the state of one controller in one file."""

    def __init__(
        self,
        path: Path,
        key: str,
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            path: The file; its directory is made when it is missing.
            key: What the state belongs to; a state of another key is not used.
            every_s: Seconds between two saves.
            clock: Monotonic seconds.
        """
        self._path = path
        self._key = key
        self._every_s = every_s
        self._clock = clock
        self._saved_s = clock()
        self._failing = False

    def load(self) -> Any | None:
        """The state that was saved; None if there is none that can be used, which is logged."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read (%s): control starts anew", self._path, error)
            return None
        try:
            return saved.decode(data, self._key)
        except StateError as error:
            logger.warning("%s: %s; control starts anew", self._path, error)
            return None

    def offer(self, state: Any) -> None:
        """Save a state if the last save is long enough ago."""
        if self._clock() - self._saved_s >= self._every_s:
            self.save(state)

    def save(self, state: Any) -> None:
        """Save a state. A disk that is full is logged once; serving goes on."""
        self._saved_s = self._clock()
        partial = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(saved.encode(state, self._key))
            sync(partial)
            partial.replace(self._path)
            sync(self._path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            if not self._failing:
                logger.error("the controller's state cannot be saved: %s", error)
            self._failing = True
            return
        if self._failing:
            logger.info("the controller's state can be saved again")
        self._failing = False
