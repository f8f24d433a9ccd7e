"""For how many batches the guard keeps credit: what is saved on reviews, by load and length.

An answered batch lets others go first and is checked later, and until then its early answers use
up credit (docs/guarantee.md). Kept for one batch, for three as by default, and for five; the
reviews of the paper's evaluation on replay (`paper.toml`), every run from cold.

    python benchmarks/reserve.py [WORKLOAD ...]

Takes about seven minutes. Writes results/reserve.json, where workloads that were not asked for stay
as they are.
"""

from typing import Any

from _common import asked, earlier, write_result
from _replays import figures, there

from apparate_jax.control.config import ControlConfig

REVIEWS = ("imdb", "amazon", "rotten", "imdb-distilbert")
KEPT = {"one batch": 1, "three": 3, "five": 5}
RUNS = (
    ("40 %, 2,500 answers", 0.4, 6, 2500),
    ("40 %", 0.4, 4, 6000),
    ("60 %, 2,500 answers", 0.6, 6, 2500),
    ("60 %", 0.6, 4, 6000),
    ("60 %, 24,000 answers", 0.6, 1, 24_000),
)
"""A name, the load, how many seeds, and of how many requests."""


def main() -> None:
    """Try every number in every run."""
    found: dict[str, Any] = earlier("reserve").get("workloads", {})
    for name in asked(REVIEWS, "workloads"):
        one = there(name)
        if one is None:
            continue
        found[name] = {}
        for run, load_frac, seeds, requests in RUNS:
            found[name][run] = {
                kept: figures(
                    one, ControlConfig(unchecked_batches=batches), seeds, requests, load_frac
                )
                for kept, batches in KEPT.items()
            }
            print(name, run, found[name][run], flush=True)
        write_result("reserve", {"workloads": found})


if __name__ == "__main__":
    main()
