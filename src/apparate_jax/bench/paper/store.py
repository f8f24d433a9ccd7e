"""Results of parts on disk: kept for as long as what they were made of is the same.

A part's file holds its result under a fingerprint of its inputs' contents and of its settings. It
is written beside its place and moved there, so a run that was ended leaves whole files only.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apparate_jax.errors import ConfigError

FORMAT = 2
"""Of parts: another number makes all of them again."""
MANIFEST = "manifest.json"


class Kept(NamedTuple):
    """A part that is there.

    Attributes:
        result: JSON values.
        took_s: How long it took to make.
        made_at: When, in seconds since 1970.
    """

    result: dict[str, Any]
    took_s: float
    made_at: float


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, of a directory's manifest, or of all files of a directory.

    A checkpoint's manifest names the contents of all that counts in it.
    """
    if path.is_dir():
        manifest = path / MANIFEST
        if manifest.is_file():
            return digest_of(manifest)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listed = [f"{file.relative_to(path)} {digest_of(file)}" for file in files]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(part: str, settings: Mapping[str, Any], digests: Sequence[str]) -> str:
    """What a part was made of, in one line.

    Args:
        part: Its name.
        settings: JSON values.
        digests: Of its inputs.
    """
    what = json.dumps([FORMAT, part, settings, digests], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()


class Store:
    """The folder of parts."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if it is not there.

        Raises:
            ConfigError: It cannot be made.
        """
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot make {folder}: {error.strerror}; name another folder with --out"
            ) from error

    def path(self, name: str) -> Path:
        """Where a part's result lies."""
        return self._folder / f"{name}.json"

    def get(self, name: str, mark: str) -> Kept | None:
        """A part with this fingerprint, None if there is none that can be read."""
        try:
            found = json.loads(self.path(name).read_text(encoding="utf-8"))
            if found["fingerprint"] != mark:
                return None
            return Kept(dict(found["result"]), float(found["took_s"]), float(found["made_at"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, name: str, mark: str, result: Mapping[str, Any], took_s: float) -> Kept:
        """Keep a part, whole or not at all; what is returned has been through JSON.

        Raises:
            ConfigError: It cannot be written.
        """
        made_at = time.time()
        content = {"fingerprint": mark, "took_s": took_s, "made_at": made_at, "result": result}
        text = json.dumps(content, indent=1, allow_nan=False)
        path = self.path(name)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
        return Kept(json.loads(text)["result"], took_s, made_at)
