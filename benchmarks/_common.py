"""What the benchmarks share: the machine, paired timing, and where results go."""

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from apparate_jax.serve.profile import device_name

RESULTS = Path(__file__).parent / "results"
CODE = ("src", "examples", "benchmarks", ":!benchmarks/results")
"""What figures depend on, as git's paths."""


def machine() -> dict[str, Any]:
    """The machine and versions that figures were measured with."""
    return {
        "device": device_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def measured() -> dict[str, Any]:
    """The day, and the revision of the code that ran; with a + if it had been changed since."""

    def git(*words: str) -> str:
        words = ("git", "-C", str(RESULTS.parent.parent), *words)
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", *CODE)
        revision = git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        revision = None
    return {"on": datetime.datetime.now(datetime.UTC).date().isoformat(), "revision": revision}


def earlier(name: str) -> dict[str, Any]:
    """What ``benchmarks/results/NAME.json`` has, so that a run of some cases keeps the others.

    Returns:
        Its content; empty if there is none, or if another machine or release of JAX measured it,
        whose figures do not belong beside this one's.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    here = machine()
    for key in ("device", "jax"):
        if found["machine"][key] != here[key]:
            was = found["machine"][key]
            print(f"{name}: begun anew here ({here[key]}), its file is of another {key} ({was})")
            return {}
    return found


def paired(fns: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Time functions in turn, after one warm-up call each.

    Args:
        fns: What to time, by name; each returns when its work is done.
        rounds: Turns of each.

    Returns:
        Seconds f64[rounds] by name. Ratios of the same round are paired.
    """
    for fn in fns.values():
        fn()
    times: dict[str, list[float]] = {name: [] for name in fns}
    for turn in range(rounds):
        names = list(fns) if turn % 2 == 0 else list(fns)[::-1]
        for name in names:
            start = time.perf_counter()
            fns[name]()
            times[name].append(time.perf_counter() - start)
    return {name: np.asarray(values) for name, values in times.items()}


def asked(known: Iterable[str], what: str, usual: Iterable[str] | None = None) -> list[str]:
    """Names on the command line; ends the program if one is unknown.

    Args:
        known: All that there are.
        what: They are called.
        usual: What is meant where none is named; all of them unless given.
    """
    names = sys.argv[1:] or list(known if usual is None else usual)
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"unknown {what} {unknown}, expected some of {list(known)}")
    return names


def write_result(name: str, payload: dict[str, Any]) -> Path:
    """Write ``benchmarks/results/NAME.json`` with the machine, day and revision."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"machine": machine(), "measured": measured(), **payload}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path.relative_to(Path.cwd())}" if path.is_relative_to(Path.cwd()) else path)
    return path
