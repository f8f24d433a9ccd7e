"""Real recorded streams for the studies and the evaluation: reviews, pictures, cameras.

    python benchmarks/traces.py [NAME...]
    python benchmarks/traces.py --profiles [NAME...]

The first records what is not there yet into runs/traces, all of it or what is named: the demo's
model on reviews of three sources, with DeeBERT's ramps too, and at DistilBERT's size; networks on
CIFAR-10, whose classes drift and shift; fixed cameras, with a head for the camera or a published
network's 1,000 classes. Beside them it writes Azure's arrivals. What is missing is skipped, with a
reason. The ramps of each are trained on data that is not recorded.

Answers do not depend on what else the machine does, latencies do: so they are measured by the
second command, where nothing else runs, and stored in the recordings that are there. Recordings of
one checkpoint share one measurement. Before it, a recording has no latencies, and replays of it say
nothing.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from _azure import write_arrivals
from _traces_profiles import measure, save, unmeasured
from _traces_streams import TRACES, MissingError
from _traces_workloads import Traced, all_workloads, with_ramps

from apparate_jax.bench.record import record
from apparate_jax.checkpoint import load_checkpoint
from apparate_jax.data import load_data
from apparate_jax.graph import trace

TOLD = 0.1
"""Share of a stream after which its progress is told."""


def make(work: Traced) -> None:
    """Record a workload.

    Raises:
        MissingError: Its data, or what its checkpoint is made of, is not there.
    """
    stream = work.stream()
    loaded = load_checkpoint(with_ramps(work))
    model = loaded.model
    data = load_data(stream, model, limit=work.limit)
    program = trace(model.apply, model.params, *model.example_inputs(1))
    told = 0.0

    def progress(done: int, total: int, what: str) -> None:
        nonlocal told
        if done >= told * total:
            print(f"{work.name}: {what}, {done} of {total}", flush=True)
            told += TOLD

    profile = unmeasured(len(program.sites))
    made = record(program, model, loaded.ramps, data, profile, progress, loaded.validation)
    save(made, work.trace)
    print(f"{work.name}: ramps agree on {made.agrees.mean(axis=0).round(4).tolist()}", flush=True)


def record_all(works: list[Traced]) -> None:
    """Record what is not there yet."""
    TRACES.mkdir(parents=True, exist_ok=True)
    write_arrivals(TRACES)
    for work in works:
        if work.trace.is_file():
            print(f"{work.name}: kept")
            continue
        try:
            make(work)
        except MissingError as missing:
            print(f"{work.name}: skipped, {missing}")


def profile_all(works: list[Traced]) -> None:
    """Measure the checkpoints of workloads, each in a process of its own."""
    recorded = [work for work in all_workloads().values() if work.trace.is_file()]
    names = {work.name for work in works}
    for name in sorted(names - {work.name for work in recorded}):
        print(f"{name}: skipped, there is no recording")
    groups: dict[Path, list[Traced]] = {}
    for work in recorded:
        groups.setdefault(work.checkpoint, []).append(work)
    wanted = [group for group in groups.values() if names & {work.name for work in group}]
    for group in wanted:
        if len(wanted) > 1:
            words = [sys.executable, __file__, "--profiles", group[0].name]
            subprocess.run(words, check=True)
            continue
        try:
            measured = measure(group[0].checkpoint, [work.trace for work in group])
        except MissingError as missing:
            print(f"skipped, {missing}")
            continue
        rows = ", ".join(f"{s.vanilla_ms:.1f} ms at {s.batch}" for s in measured.shapes)
        print(f"{', '.join(work.name for work in group)}: {rows}", flush=True)


def main() -> None:
    """Record, or measure."""
    known = all_workloads()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--profiles", action="store_true", help="measure latencies, here and now")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(known))
    if unknown:
        parser.error(f"unknown workloads {unknown}, expected some of {list(known)}")
    chosen = [work for name, work in known.items() if name in (args.names or known)]
    (profile_all if args.profiles else record_all)(chosen)


if __name__ == "__main__":
    main()
