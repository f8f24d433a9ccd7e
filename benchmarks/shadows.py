"""How often shadow batches are worth it: one in 16, one in 4, or that while inputs come alone.

The paper's workloads on replay (`paper.toml`; without recordings of ``benchmarks/traces.py`` they
are left out), three seeds each. Shadow batches say what the inactive ramps would have answered, so
that the choice of ramps follows the stream; their work delays whoever comes meanwhile.

    python benchmarks/shadows.py [WORKLOAD ...]

Takes about five minutes. Writes results/shadows.json, where workloads that were not asked for stay
as they are.
"""

from typing import Any

from _common import asked, earlier, write_result
from _replays import SUITE, figures, there

from apparate_jax.control import load as loads
from apparate_jax.control.config import ControlConfig

SEEDS, REQUESTS = 3, 6000
OFTEN, SELDOM = 4, 16
RULES = {
    f"one in {SELDOM}": (SELDOM, 1),
    f"one in {OFTEN}": (OFTEN, 1),
    f"one in {OFTEN} while alone": (SELDOM, SELDOM // OFTEN),
}
"""Batches between two shadow batches, and how many times as often they come while alone."""


def main() -> None:
    """Try every rule on every workload."""
    settings = {"seeds": SEEDS, "requests": REQUESTS, "quiet": loads.QUIET}
    kept: dict[str, Any] = earlier("shadows").get("workloads", {})
    chosen = loads.OFTEN
    for name in asked(tuple(SUITE), "workloads"):
        one = there(name)
        if one is None:
            continue
        kept[name] = {}
        for rule, (every, often) in RULES.items():
            loads.OFTEN = often
            control = ControlConfig(shadow_every=every)
            kept[name][rule] = figures(one, control, SEEDS, REQUESTS)
            print(name, rule, kept[name][rule], flush=True)
        loads.OFTEN = chosen
        write_result("shadows", {**settings, "workloads": kept})


if __name__ == "__main__":
    main()
