"""A workload of the paper's evaluation on replay, under some control: means over seeds."""

from pathlib import Path

import numpy as np

from apparate_jax.bench.paper.suite import Workload, read_suite
from apparate_jax.bench.recording import load
from apparate_jax.bench.replay import ReplayConfig
from apparate_jax.bench.replayed import ReplayedConfig, policy, run_replayed
from apparate_jax.bench.workload import read_trace
from apparate_jax.control.config import ControlConfig
from apparate_jax.serve.engine_config import EngineConfig

SUITE = {one.name: one for one in read_suite(Path(__file__).with_name("paper.toml")).workloads}


def figures(
    one: Workload,
    control: ControlConfig,
    seeds: int,
    requests: int,
    load_frac: float = 0.4,
    *,
    own_rate: bool = True,
    engine: EngineConfig | None = None,
) -> dict[str, float]:
    """What is saved, and how many answers differ.

    Args:
        one: The workload.
        control: Settings of control.
        seeds: How many runs.
        requests: Of each run.
        load_frac: Of the original's throughput.
        own_rate: A camera has its own in place of that.
        engine: Settings of the engine; its defaults unless given.
    """
    recording = load(one.trace)
    trace = None if one.arrivals is None else read_trace(one.arrivals)
    found = []
    for seed in range(seeds):
        config = ReplayedConfig(
            load_frac=load_frac,
            rate_rps=one.rate if own_rate else None,
            arrivals=one.pace,
            requests=requests,
            saturated=1024,
            seed=seed,
        )
        first_row = seed * requests // seeds
        settings = ReplayConfig(engine or EngineConfig(), seed=seed, first_row=first_row)
        compared, _ = run_replayed(
            recording, policy(recording, control), config, settings, trace=trace
        )
        (turn,) = compared.rounds
        ours, original = (turn.answers[name].latency_ms for name in ("apparate", "vanilla"))
        found.append(
            {
                "p50_saved_frac": 1.0 - np.median(ours) / np.median(original),
                "mean_saved_frac": 1.0 - ours.mean() / original.mean(),
                "p95_ratio": np.percentile(ours, 95) / np.percentile(original, 95),
                "p99_ratio": np.percentile(ours, 99) / np.percentile(original, 99),
                "disagreement": 1.0 - turn.answers["apparate"].right.mean(),
            }
        )
    return {key: round(float(np.mean([row[key] for row in found])), 4) for key in found[0]}


def there(name: str) -> Workload | None:
    """A workload, or None where it was not recorded here."""
    one = SUITE[name]
    if one.trace.is_file():
        return one
    print(f"{name}: left out, {one.trace.name} is not there: benchmarks/traces.py")
    return None
