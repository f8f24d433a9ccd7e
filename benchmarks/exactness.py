"""Recomposed stages against the monolithic program: the largest difference at every cut.

Every model of the test table and the demo's model, every single cut, and all cuts at once, float32
on the device at hand. Writes results/exactness.json.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _common import write_result
from _demo import demo_checkpoint

from apparate_jax.graph import trace

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.zoo import CASES


def differences(fn: Any, params: Any, inputs: Any) -> dict[str, Any]:
    """Largest absolute difference over all single cuts, and with every cut."""
    program = trace(fn, params, *inputs)
    compiled = jax.jit(fn, compiler_options=program.compiler_options or None)
    expected = np.asarray(compiled(params, *inputs), np.float64)
    sets = [[i] for i in range(len(program.sites))] + [list(range(len(program.sites)))]
    worst = 0.0
    for sites in sets:
        value = None
        for stage in program.split(sites):
            value = stage(value, *inputs)
        worst = max(worst, float(np.abs(np.asarray(value, np.float64) - expected).max()))
    return {"sites": len(program.sites), "splits": len(sets), "largest_difference": worst}


def main() -> None:
    """Compare every model at every cut."""
    result = {}
    for name, make in CASES.items():
        case = make()
        result[name] = differences(case.fn, case.params, case.inputs)
    model = demo_checkpoint().model
    for batch in (1, 4):
        inputs = model.example_inputs(batch)
        result[f"{model.name}, batch {batch}"] = differences(model.apply, model.params, inputs)
    for name, row in result.items():
        print(f"{name:28} {row['sites']:3} sites  difference {row['largest_difference']}")
    write_result("exactness", {"models": result})


if __name__ == "__main__":
    main()
