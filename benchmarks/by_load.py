"""What depends on the load, by load: latency with each rule, and without it.

On replay, at shares of what the original model serves: as by default; with nothing put off; with
answered batches put off at any load; and with shadow batches as often at any load. Where several
requests take little longer than one, putting off costs the tail once the device can hardly keep up
with two at a time; where they do not, it saves up to saturation.

    python benchmarks/by_load.py [WORKLOAD ...]

Takes about five minutes. Writes results/by_load.json, where workloads that were not asked for stay
as they are.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from _common import asked, earlier, write_result
from _replays import figures, there

from apparate_jax.control import load
from apparate_jax.control.config import ControlConfig
from apparate_jax.serve import choice
from apparate_jax.serve.engine_config import EngineConfig

WORKLOADS = ("imdb", "rotten", "cifar-resnet-18", "cifar-resnet-50", "cars-resnet-18")
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9)
SEEDS, REQUESTS = 3, 5000


@contextmanager
def as_often() -> Iterator[None]:
    """Shadow batches as if the device were idle."""
    due = load.shadow_due

    def idle(since: int, every: int, seen: load.Load, alone: int) -> bool:
        return due(since, every, seen._replace(utilisation=0.0), alone)

    with patch.object(choice, "shadow_due", idle):
        yield


DEFAULT = EngineConfig()
VARIANTS: dict[str, tuple[EngineConfig, Callable[[], AbstractContextManager[object]]]] = {
    "default": (DEFAULT, nullcontext),
    "nothing put off": (replace(DEFAULT, defer=0), nullcontext),
    "put off at any load": (DEFAULT, lambda: patch.object(load, "KEEPS", math.inf)),
    "as many shadow batches": (DEFAULT, as_often),
}
"""A name, the engine's settings, and what is changed beside them."""


def main() -> None:
    """Replay every workload at every load under every variant."""
    found: dict[str, Any] = earlier("by_load").get("workloads", {})
    for name in asked(WORKLOADS, "workloads"):
        one = there(name)
        if one is None:
            continue
        found[name] = {}
        for load_frac in LOADS:
            row = found[name][str(load_frac)] = {}
            for variant, (engine, changed) in VARIANTS.items():
                with changed():
                    row[variant] = figures(
                        one,
                        ControlConfig(),
                        SEEDS,
                        REQUESTS,
                        load_frac,
                        own_rate=False,
                        engine=engine,
                    )
            print(name, load_frac, row, flush=True)
        write_result("by_load", {"workloads": found})


if __name__ == "__main__":
    main()
