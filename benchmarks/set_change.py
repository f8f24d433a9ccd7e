"""What a change of the active set costs those who are served while its programs are compiled.

The demo's model at a steady rate on the live engine: quiet, while the merged programs of another
set are compiled by a child at idle priority, and while they are compiled in this process, as a
server without the child would. In turns, another set each time, so that nothing is compiled twice.
Writes results/set_change.json.
"""

import itertools
import time
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from _common import write_result
from _demo import demo_checkpoint

from apparate_jax.bench.live import send
from apparate_jax.core import Answer
from apparate_jax.serve import Engine, prepare, programs

LOADS = (0.3, 0.6)
ROUNDS = 3
QUIET_S = 6.0
SATURATED_S = 4.0
LONGEST_S = 120.0


def stream(engine: Engine, example: Any, rate: float, until: Any) -> list[float]:
    """Milliseconds of requests at a steady rate, for as long as ``until`` says."""
    times: list[float] = []
    start = time.monotonic()
    for sent in itertools.count():
        due = start + sent / rate
        time.sleep(max(0.0, due - time.monotonic()))
        if until(time.monotonic() - start):
            break

        def arrived(_: "Future[Answer]", due: float = due) -> None:
            times.append(1000 * (time.monotonic() - due))

        engine.submit(example, arrived_s=due).add_done_callback(arrived)
    engine.wait_idle()
    return times


def capacity(engine: Engine, example: Any) -> float:
    """Requests per second with a queue that is never empty."""
    count = 64
    start = time.monotonic()
    sent = 0
    while time.monotonic() - start < SATURATED_S:
        send(engine, itertools.repeat(example), np.zeros(count))
        sent += count
    return sent / (time.monotonic() - start)


def row(times: list[float]) -> dict[str, float]:
    """Percentiles of a phase."""
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return {
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "p99_ms": round(p99, 1),
        "requests": len(times),
    }


def main() -> None:
    """Measure every load."""
    jax.config.update("jax_enable_compilation_cache", False)
    checkpoint = demo_checkpoint()
    service = prepare(checkpoint)
    model, made = checkpoint.model, service.programs
    values = model.example_inputs(1)
    example = {spec.name: np.asarray(v)[0] for spec, v in zip(model.inputs, values, strict=True)}
    sets = itertools.combinations(sorted(made.ramps), 3)
    useful = programs.is_useful
    loads = []
    with service.vanilla() as engine:
        most = capacity(engine, example)
        for load in LOADS:
            rounds = []
            for _ in range(ROUNDS):
                found: dict[str, Any] = {
                    "quiet": row(stream(engine, example, load * most, lambda s: s > QUIET_S))
                }
                for name, child in (("child", True), ("in_process", False)):
                    programs.is_useful = useful if child else lambda: False  # type: ignore[assignment]
                    start = time.monotonic()
                    done = made.prepare(next(sets))
                    over = lambda s, done=done: done.done() or s > LONGEST_S  # noqa: E731
                    found[name] = row(stream(engine, example, load * most, over))
                    done.result()
                    found[name]["compiled_in_s"] = round(time.monotonic() - start, 1)
                rounds.append(found)
                print(load, found, flush=True)
            medians = {
                name: {
                    key: round(float(np.median([one[name][key] for one in rounds])), 1)
                    for key in rounds[0][name]
                }
                for name in rounds[0]
            }
            loads.append({"load_frac": load, "medians": medians, "rounds": rounds})
    made.close()
    write_result("set_change", {"capacity_rps": round(most, 1), "loads": loads})


if __name__ == "__main__":
    main()
