"""The systems that are compared: how each is installed, started and asked.

Each has an environment of its own below runs/peers, made with pip if it is missing, of one Python
3.12 (the latest that PyTriton brings a backend for) and the newest JAX of it; apparate too, so that
all of them run the same compiler.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _demo import ROOT
from _http_client import inference_request, raw_request
from _served import apparate_serve
from numpy.typing import NDArray

ENVIRONMENTS = ROOT / "runs" / "peers"
PROBE = """
import importlib.metadata as m, json, platform, sys
found = {name: m.version(name) for name in sys.argv[1:]}
print(json.dumps({"python": platform.python_version(), **found}))
"""


class System(NamedTuple):
    """One system.

    Attributes:
        name: In results.
        package: What pip installs beside the library; its environment's name.
        requirements: As pip takes them.
        command: ``command(bin, checkpoint, port)``, bin being the environment's.
        encode: A row as the bytes of a request.
        setup: How batches are formed, for the reader of results.
        learns: Whether it adapts to its requests, so that it is to see some first.
    """

    name: str
    package: str
    requirements: tuple[str, ...]
    command: Callable[[Path, Path, int], Sequence[str]]
    encode: Callable[[Mapping[str, NDArray[Any]]], bytes]
    setup: str
    learns: bool = False


def _script(name: str) -> Callable[[Path, Path, int], Sequence[str]]:
    file = str(Path(__file__).with_name(name))
    return lambda place, checkpoint, port: [
        str(place / "python"),
        file,
        str(checkpoint),
        str(port),
    ]


def _apparate(exits: bool) -> Callable[[Path, Path, int], Sequence[str]]:
    return lambda place, checkpoint, port: apparate_serve(
        place / "apparate", checkpoint, port, exits=exits
    )


def _protocol(row: Mapping[str, NDArray[Any]]) -> bytes:
    return inference_request("/v2/models/model/infer", row)


def _raw(row: Mapping[str, NDArray[Any]]) -> bytes:
    return raw_request("/predict", row)


OWN = ("apparate-jax", (f"{ROOT}[serve]",))
SYSTEMS = (
    System("apparate, exits off", *OWN, _apparate(False), _protocol, "immediate, the default"),
    System("apparate, exits on", *OWN, _apparate(True), _protocol, "immediate, the default", True),
    System(
        "LitServe",
        "litserve",
        (str(ROOT), "litserve"),
        _script("_peers_litserve.py"),
        _raw,
        "max_batch_size=8, batch_timeout=0 (its default), fast_queue, raw body",
    ),
    System(
        "Ray Serve",
        "ray",
        (str(ROOT), "ray[serve]"),
        _script("_peers_ray.py"),
        _raw,
        "serve.batch(max_batch_size=8, batch_wait_timeout_s=0), one replica, raw body",
    ),
    System(
        "Triton",
        "nvidia-pytriton",
        (str(ROOT), "nvidia-pytriton"),
        _script("_peers_triton.py"),
        _protocol,
        "PyTriton, max_batch_size=8, DynamicBatcher() (its defaults: no delay), binary HTTP",
    ),
)


def find_python() -> str:
    """An interpreter of Python 3.12, which all the systems run on.

    Raises:
        RuntimeError: There is none.
    """
    kept = sorted((Path.home() / ".pyenv" / "versions").glob("3.12.*/bin/python"))
    for place in (shutil.which("python3.12"), *map(str, reversed(kept))):
        if place and not subprocess.run([place, "-c", ""], capture_output=True).returncode:
            return place
    raise RuntimeError("no Python 3.12 found: put python3.12 on the PATH")


def install(system: System) -> Path:
    """Make a system's environment if it is missing.

    Returns:
        Its folder of programs.

    Raises:
        RuntimeError: pip failed; with what it said last.
    """
    place = ENVIRONMENTS / system.package
    stamp = place / ".installed"
    if not stamp.exists():
        print(f"installing {system.package}", flush=True)
        subprocess.run([find_python(), "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", "--upgrade"]
        words = ["--disable-pip-version-check", "jax", "-e", *system.requirements]
        done = subprocess.run([*pip, *words], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"pip: {done.stderr.strip()[-600:]}")
        stamp.touch()
    return place / "bin"


def versions(system: System) -> dict[str, str]:
    """Python, JAX and the system's own version in its environment."""
    python = ENVIRONMENTS / system.package / "bin" / "python"
    names = ["jax", "jaxlib", "numpy", system.package]
    done = subprocess.run([str(python), "-c", PROBE, *names], capture_output=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
