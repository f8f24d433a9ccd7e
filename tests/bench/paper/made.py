"""Results of parts made by hand, and parts that only count how often they run."""

from apparate_jax.bench.baselines import SYSTEMS
from apparate_jax.bench.paper.config import PaperConfig
from apparate_jax.bench.paper.parts import Given, Part
from apparate_jax.bench.paper.run import Done
from apparate_jax.bench.paper.store import Kept
from apparate_jax.bench.paper.suite import Suite, Workload
from apparate_jax.bench.study import means
from tests.bench import tiny

CONFIG = PaperConfig(requests=300, settle=50, saturated=100, seeds=2)


def row(system, seed=0, setting="all", **changed):
    """What a system did in one run: a fifth of every percentile saved, unless said otherwise."""
    made = {
        "setting": setting,
        "system": system,
        "seed": seed,
        "agreement": 0.992,
        "disagreement": 0.008,
        "windows_below_constraint": 0.1,
        "throughput_ratio": 1.0,
    }
    for p, ms in (("p25", 8.0), ("p50", 10.0), ("p95", 20.0), ("p99", 30.0)):
        made |= {f"{p}_ms": 0.8 * ms, f"{p}_saved_frac": 0.2}
    return made | changed


def result(rows, **more):
    return {"by_seed": rows, "rows": means(rows), **more}


def systems(seeds=2, **saved):
    """Every system; ``saved`` are median savings by system that are not 0.2."""
    names = [name for name in SYSTEMS if name != "vanilla"]
    rows = [
        row(name, seed, p50_saved_frac=saved.get(name.replace("-", "_"), 0.2))
        for seed in range(seeds)
        for name in names
    ]
    curve = [float(n) for n in range(201)]
    held = {"window": 10, "answers": [10, 20], "last": [0.9, 1.0], "so_far": [0.9, 0.95]}
    return result(
        rows,
        curves={name: curve for name in ("vanilla", "apparate", "oracle")},
        agreement={"apparate": held, "initial-only": held},
        exit_rates={"near": 0.25, "final": 0.75},
        heavy=True,
    )


def study(name, settings, systems=("apparate",), **more):
    rows = [row(s, 0, setting) for setting in settings for s in systems]
    told = {"study": name, "what": name, "model": "m", "workload": "w", "stream": "independent"}
    told |= {"requests": 350, "seeds": 1, "load_frac": 0.4, "accuracy_constraint": 0.99}
    return result(rows, **told, **more)


def overheads(parameter_bytes=None):
    cost = {"feedback_ms": 0.03, "tuning_ms": 0.4, "tunings": 3, "batches": 90, "answers": 300}
    return {
        "shapes": [
            {"batch": b, "vanilla_ms": 10.0, "total_ms": 10.0, "added_frac": f, "heads_frac": 0.01}
            for b, f in ((1, 0.03), (8, 0.01))
        ],
        "active_ramps": ["near"],
        "sites": 3,
        "ramp_bytes": [1000, 2000],
        "active_bytes": 1000,
        "parameter_bytes": parameter_bytes,
        "control": {name: {**cost, "mean_ms_per_batch": 0.1} for name in ("apparate", "paper")},
    }


def given(folder, config=CONFIG, **workloads):
    """A suite of tiny recordings, one for each name and kind."""
    made = []
    for seed, (name, kind) in enumerate((workloads or {"words": "text"}).items()):
        path = folder / f"{name}.npz"
        tiny.recording(60, seed).save(path)
        made.append(Workload(name, kind, path))
    return Given(Suite(tuple(made)), config)


def done(given, **results):
    """An evaluation with these results for its first workload, systems for the others."""
    first, *others = (one.name for one in given.suite.workloads)
    kept = {(first, part): Kept(found, 1.0, 0.0) for part, found in results.items()}
    kept |= {(name, "systems"): Kept(systems(), 1.0, 0.0) for name in others}
    return Done(kept, {(first, "live"): "nobody asked"}, (), tuple(results))


def counting(name, calls, **more):
    """A part that counts."""

    def run(given, workload, progress):
        calls.append((workload.name, name))
        progress(1, 1, name)
        return {"calls": len(calls)}

    return Part(name, name, run, **more)
