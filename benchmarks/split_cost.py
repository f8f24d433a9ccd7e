"""What splitting costs: the original as one program against stages with two ramps, heads included.

Paired, alternating, warmed up; medians, and the median of the ratios of each round. Also where the
cost goes: the split without heads, and the heads. Writes results/split_cost.json.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from _common import paired, write_result
from _demo import demo_checkpoint

from apparate_jax.core import Model
from apparate_jax.graph import Program, trace
from apparate_jax.serve.profile import answer_times
from apparate_jax.serve.programs import Programs

SETS = {"two ramps": (2, 6), "three ramps": (2, 6, 8)}
ROUNDS = {1: 200, 2: 120, 4: 80, 8: 50}


def route_runner(
    programs: Programs, sites: tuple[int, ...], batch: int, inputs: Any, *, hold: bool = False
) -> Callable[[], None]:
    """Dispatch a route and wait for its final answer on the host."""
    route = programs.route(sites, batch)

    def run() -> None:
        answer_times(route, programs, inputs, hold=hold)

    return run


def stages_without_heads(program: Program, sites: Sequence[int], inputs: Any) -> Callable[[], None]:
    """The same stages, compiled and dispatched alike, but without any head."""
    compiled = []
    for stage in program.split(sites):
        takes = stage.carry is not None
        count = len(stage.constants)

        def run(*args: Any, stage: Any = stage, takes: bool = takes, count: int = count) -> Any:
            carry = args[count] if takes else None
            return stage.body(args[:count], carry, *args[count + takes :])[0]

        shapes = [jax.ShapeDtypeStruct(c.shape, c.dtype) for c in stage.constants]
        carried = [stage.carry] if takes else []
        lowered = jax.jit(run, keep_unused=True).lower(*shapes, *carried, *program.input_shapes)
        compiled.append((lowered.compile(), stage.constants, takes))

    def call() -> None:
        carry = None
        for executable, constants, takes in compiled:
            carry = executable(*constants, *((carry,) if takes else ()), *inputs)
        np.asarray(carry)

    return call


def measure(programs: Programs, program: Program, model: Model, batch: int) -> dict[str, Any]:
    """Times and ratios at one batch shape."""
    inputs = jax.device_put(model.example_inputs(batch))
    at_batch = program.rebatch(batch)
    fns = {
        "original": route_runner(programs, (), batch, inputs),
        "original without packing": stages_without_heads(at_batch, (), inputs),
        "split at two sites, no heads": stages_without_heads(at_batch, SETS["two ramps"], inputs),
    }
    for name, sites in SETS.items():
        fns[name] = route_runner(programs, sites, batch, inputs)
    held = SETS["two ramps"]
    fns["two ramps, held behind the last"] = route_runner(programs, held, batch, inputs, hold=True)
    times = paired(fns, ROUNDS[batch])
    base = times["original"]
    return {
        name: {
            "median_ms": round(float(np.median(t)) * 1e3, 3),
            "ratio": round(float(np.median(t / base)), 4),
        }
        for name, t in times.items()
    }


def main() -> None:
    """Measure every batch shape."""
    checkpoint = demo_checkpoint()
    model = checkpoint.model
    program = trace(model.apply, model.params, *model.example_inputs(1))
    programs = Programs(program, model, checkpoint.ramps, tuple(ROUNDS))
    for sites in ((), *SETS.values()):
        programs.warm_merged(sites)
    result = {f"batch {batch}": measure(programs, program, model, batch) for batch in ROUNDS}
    for batch, rows in result.items():
        for name, row in rows.items():
            print(f"{batch:8} {name:30} {row['median_ms']:8.2f} ms  x{row['ratio']:.3f}")
    sites = {name: [program.sites[s].name for s in chosen] for name, chosen in SETS.items()}
    targets = {"batch 1": 1.05, "batch 4 and above": 1.03, "with": "two ramps, heads included"}
    write_result("split_cost", {"model": model.name, "sites": sites, "targets": targets, **result})


if __name__ == "__main__":
    main()
