"""Peak memory of inject and train-ramps, over an idle process that imported the same modules.

Each command runs in a process of its own, on a model with random weights and a compilation cache
that is empty. The target: at most 1.5 times the model's weights, plus the cache of features. As a
reference, ``plain jax`` makes the same model and runs it once under ``jax.jit``, at the batch size
of train-ramps. Data in ``.npz`` is in memory and counted: ``data_mib``. Writes results/memory.json.
"""

import importlib
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _common import write_result

from apparate_jax.models import load_model
from apparate_jax.ramps import TrainConfig

TARGET = 1.5
MODELS: dict[str, tuple[list[str], int]] = {
    "minilm-l6": (["--seq-len", "64"], 1000),
    "bert-base": (["--seq-len", "32"], 300),
    "resnet-18": (["--classes", "10"], 300),
}
"""Arguments of inject, and how many samples ramps are trained on."""

MIB = 2**20


def idle() -> None:
    """Import what the commands import and start the device, nothing else."""
    for name in ("apparate_cli.main", "orbax.checkpoint", "pyarrow.parquet", "tokenizers"):
        importlib.import_module(name)
    jax.numpy.zeros(8).block_until_ready()


def command(*arguments: str) -> None:
    """Run a command in this process, as the installed script does."""
    (script,) = entry_points(group="console_scripts", name="apparate")
    sys.argv = ["apparate", *arguments]
    try:
        script.load()()
    except SystemExit as left:
        if left.code:
            raise


def plain(name: str, *options: str) -> None:
    """Make a model and run it once, without anything of ours after that."""
    idle()
    model = load_model(name, **settings(options))
    inputs = model.example_inputs(TrainConfig().batch_size)
    jax.block_until_ready(jax.jit(model.apply)(model.params, *inputs))


def settings(options: Sequence[str]) -> dict[str, int]:
    """Options of inject as those of ``load_model``."""
    given = {"--seq-len": "seq_len", "--classes": "classes"}
    return {given[k]: int(v) for k, v in zip(options[::2], options[1::2], strict=True)}


def peak_bytes(*arguments: str) -> int:
    """Peak resident size of a process that runs a command, or idles without one."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "APPARATE_CACHE": cache}
        child = subprocess.run(
            [sys.executable, __file__, "--child", *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
    return int(child.stdout.splitlines()[-1])


def own_peak_bytes() -> int:
    """Peak resident size of this program, what ran in the process before it left out."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # Linux hands the parent's ru_maxrss down; the high-water mark begins anew with the program.
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])


def weights_bytes(checkpoint: Path) -> int:
    """Size of a checkpoint's parameters."""
    params = json.loads((checkpoint / "manifest.json").read_text())["model"]["params"]
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for _, shape, dtype in params)


def write_data(path: Path, name: str, options: list[str], count: int) -> None:
    """Inputs that fit a model, ``.npz`` by input name."""
    model = load_model(name, **settings(options))
    examples = zip(model.inputs, model.example_inputs(count), strict=True)
    np.savez(path, **{spec.name: _differing(values) for spec, values in examples})


def _differing(values: Any) -> Any:
    """Rows that even random weights tell apart: one token again and again, one colour each."""
    first = values.reshape(len(values), -1)[:, :1].reshape(-1, *[1] * (values.ndim - 1))
    if np.issubdtype(values.dtype, np.integer):
        return np.broadcast_to(first, values.shape)
    colours = np.random.default_rng(0).normal(0, 2, (len(values), 1, 1, values.shape[-1]))
    return (values + colours).astype(values.dtype)


def measure(name: str, options: list[str], count: int, idle_bytes: int) -> dict[str, Any]:
    """Peaks of both commands for one model, features in memory and on disk."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data, checkpoint, report = root / "data.npz", root / "ckpt", root / "report.json"
        subprocess.run(
            [sys.executable, __file__, "--data", str(data), name, str(count), *options], check=True
        )
        peaks = {"plain jax": peak_bytes("--plain", name, *options)}
        peaks |= {"inject": peak_bytes("inject", name, "-o", str(checkpoint), *options)}
        train = ["train-ramps", str(checkpoint), "--data", str(data), "--data-frac", "1"]
        peaks["train-ramps"] = peak_bytes(*train, "--json", str(report))
        peaks["train-ramps on disk"] = peak_bytes(*train, "--cache-dir", folder)
        sites = json.loads(report.read_text())["sites"]
        weights, data_bytes = weights_bytes(checkpoint), data.stat().st_size
    classes = int(options[options.index("--classes") + 1]) if "--classes" in options else 2
    numbers = sum(site["shape"][-1] for site in sites if site["ramp"]) + classes
    caches = {
        "plain jax": 0,
        "inject": 0,
        "train-ramps": 4 * count * numbers,
        "train-ramps on disk": 0,
    }
    rows: dict[str, Any] = {
        "weights_mib": round(weights / MIB, 1),
        "samples": count,
        "data_mib": round(data_bytes / MIB, 1),
    }
    for what, peak in peaks.items():
        over = peak - idle_bytes
        rows[what] = {
            "peak_mib": round(peak / MIB, 1),
            "over_idle_mib": round(over / MIB, 1),
            "cache_mib": round(caches[what] / MIB, 1),
            "times_weights": round((over - caches[what]) / weights, 2),
            "within_target": bool(over <= TARGET * weights + caches[what]),
        }
    return rows


def main() -> None:
    """Measure every model."""
    idle_bytes = peak_bytes()
    result = {"target": f"{TARGET} x weights + cache", "idle_mib": round(idle_bytes / MIB, 1)}
    asked = sys.argv[1:] or list(MODELS)
    for name in asked:
        options, count = MODELS[name]
        result[name] = measure(name, options, count, idle_bytes)
        print(name, json.dumps(result[name], indent=1), flush=True)
    if asked == list(MODELS):
        write_result("memory", result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run = plain if sys.argv[2:3] == ["--plain"] else command if sys.argv[2:] else idle
        run(*sys.argv[3 if run is plain else 2 :])
        print(own_peak_bytes())
    elif sys.argv[1:2] == ["--data"]:
        path, model, count, *options = sys.argv[2:]
        write_data(Path(path), model, options, int(count))
    else:
        main()
