"""The results file of the GPU suite: cases by part, kept from call to call, written after each.

A case is what is measured at once. It is kept while the device, JAX and the suite's size are those
that it was measured with; anything else is measured again.
"""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def file_name(device: str) -> str:
    """The name of a device's results file."""
    kind = "cpu" if device.startswith("cpu") else device.partition("(")[0]
    return f"gpu-{re.sub(r'[^a-z0-9]+', '-', kind.lower()).strip('-')}.json"


class Results:
    """All parts' cases on one device."""

    def __init__(self, path: Path, machine: Mapping[str, Any] | None = None) -> None:
        """Read what is there.

        Args:
            path: Of the file; there need not be one.
            machine: Of what is to be added; as in the file if None.
        """
        self.path = path
        self.content: Json = json.loads(path.read_text()) if path.exists() else {"parts": {}}
        if machine is not None:
            self.content = {"machine": dict(machine), "parts": self.content["parts"]}

    def begin(
        self, part: str, about: str, settings: Json, keys: Sequence[str], *, force: bool = False
    ) -> None:
        """Take a part up: cases that were measured with the same settings stay, unless forced."""
        settings = json.loads(json.dumps(settings))  # as it will be read
        old = self.content["parts"].get(part, {})
        kept = old if old.get("with") == settings and not force else {}
        self.content["parts"][part] = {
            "about": about,
            "with": settings,
            "state": "",
            "left": list(keys),
            "cases": {k: v for k, v in kept.get("cases", {}).items() if k in keys},
            "failed": {k: v for k, v in kept.get("failed", {}).items() if k in keys},
        }
        self._write(part)

    def pending(self, part: str, skip: Collection[str] = ()) -> list[str]:
        """Cases to measure, those that failed before at the end."""
        content = self.content["parts"][part]
        failed = [key for key in content["left"] if key in content["failed"]]
        fresh = [key for key in content["left"] if key not in content["failed"]]
        return [key for key in fresh + failed if key not in skip]

    def add(self, part: str, key: str, figures: Json) -> None:
        """Keep a case's figures."""
        content = self.content["parts"][part]
        content["cases"][key] = figures
        content["failed"].pop(key, None)
        self._write(part)

    def fail(self, part: str, key: str, why: str) -> None:
        """Keep why a case has no figures; it is tried again in the next call."""
        self.content["parts"][part]["failed"][key] = why
        self._write(part)

    def left(self, part: str) -> list[str]:
        """Cases without figures."""
        return list(self.content["parts"].get(part, {}).get("left", ()))

    def is_done(self, part: str, settings: Json) -> bool:
        """Whether every case was measured with these settings."""
        found = self.content["parts"].get(part, {})
        same = found.get("with") == json.loads(json.dumps(settings))
        return bool(same and found["state"] == "done")

    def _write(self, part: str) -> None:
        content = self.content["parts"][part]
        content["left"] = [k for k in content["left"] if k not in content["cases"]]
        content["state"] = "partial" if content["left"] else "done"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        partial.write_text(json.dumps(self.content, indent=1) + "\n")
        partial.replace(self.path)
