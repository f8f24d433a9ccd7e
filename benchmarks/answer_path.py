"""The answer path: from a ramp output being on the host to its future being resolved.

A releaser of the real engine is fed answers that are already on the host, so what is timed is its
own work: unpacking, comparing with thresholds, making answers, resolving futures. Writes
results/answer_path.json.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from _common import write_result
from _demo import demo_checkpoint

from apparate_jax.core import ExitPlan
from apparate_jax.graph import trace
from apparate_jax.serve.engine import Engine, EngineConfig
from apparate_jax.serve.programs import Programs
from apparate_jax.serve.route import Course

ROUNDS = 400


class Timed(Programs):
    """Programs that note when each ramp output was on the host."""

    on_host: list[float]

    def route(self, sites: tuple[int, ...], batch: int) -> Any:
        """The route, with each of its answers waited for and timed."""
        route = super().route(sites, batch)
        noted = self.on_host

        class Waited(Course):
            def answers(self, stop: int | None = None) -> Iterator[jax.Array]:
                # All are queued before the first can be ready, as when serving: the later stages
                # compete for the cores, their dispatch does not compete for the interpreter.
                for answer in list(super().answers(stop)):
                    np.asarray(answer)
                    noted.append(time.monotonic())
                    yield answer

        class Watched:
            def start(self, params: Any, inputs: Any) -> Course:
                return Waited(route, params, inputs)

        return Watched()


def main() -> None:
    """Time answers at each batch shape."""
    checkpoint = demo_checkpoint()
    model = checkpoint.model
    program = trace(model.apply, model.params, *model.example_inputs(1))
    programs = Timed(program, model, checkpoint.ramps, (1, 8))
    programs.on_host = []
    programs.warm_merged((2, 6))
    plan = ExitPlan((2, 6), (1.0, 0.0))
    result = {}
    for batch in (1, 8):
        waits: list[float] = []
        rows = model.example_inputs(batch)
        names = [spec.name for spec in model.inputs]
        engine = Engine(programs, EngineConfig(defer=0), plan=plan)
        done: list[float] = []

        def note(_: "Future[Any]", done: list[float] = done) -> None:
            done.append(time.monotonic())

        for _ in range(ROUNDS // batch):
            programs.on_host.clear()
            done.clear()
            futures = [
                engine.submit({n: x[i] for n, x in zip(names, rows, strict=True)})
                for i in range(batch)
            ]
            for future in futures:
                future.add_done_callback(note)
            if not engine.ready:
                engine.start()
            for future in futures:
                future.result(30)
            engine.wait_idle()
            if len(programs.on_host) == 3:  # the round went through as one batch
                waits += [at - programs.on_host[0] for at in done]
        engine.close()
        values = np.asarray(waits) * 1e3
        result[f"batch {batch}"] = {
            "answers": len(values),
            "median_ms": round(float(np.median(values)), 4),
            "p95_ms": round(float(np.percentile(values, 95)), 4),
        }
        print(f"batch {batch}: {result[f'batch {batch}']}")
    write_result("answer_path", {"target_median_ms": 0.2, **result})


if __name__ == "__main__":
    main()
