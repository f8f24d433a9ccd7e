"""Live: the original model against early answers on the real engine, a tiny trained GPT-2.

Both and the original a second time (by how much equal systems differ here) in turns, the same texts
at the same times, as `apparate bench live` does it.
"""

from functools import partial
from typing import Any

from _live_model import checkpoint, texts
from _sizes import Live, Size

from apparate_jax.bench.live import LiveConfig, run_live
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.control.config import ControlConfig
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve.service import Service, ServiceConfig, prepare

RAMP_BUDGET = 1.0
"""Far above the default: ramps that are dear on so small a model are to be seen, not dropped."""
KEPT = ("rate_rps", "requests", "vanilla", "apparate", "compared", "profile", "rounds")
"""Of the report."""


_made: dict[str, tuple[Service, float]] = {}


def service(live: Live) -> tuple[Service, float]:
    """The service, made once for all loads, and how often its model is right."""
    if "service" not in _made:
        control = ControlConfig()
        made, right = checkpoint(live, control)
        placement = PlacementConfig(ramp_budget=RAMP_BUDGET)
        config = ServiceConfig(live.batches, control=control, placement=placement)
        _made["service"] = prepare(made, config), right
    return _made["service"]


def measure(size: Size, load_frac: float) -> dict[str, Any]:
    """The report of a run at one load."""
    live = size.live
    served, right = service(live)
    config = LiveConfig(
        load_frac,
        rounds=live.rounds,
        round_s=live.round_s,
        saturation_s=live.saturation_s,
        settle=live.settle,
        noise_floor=True,
    )
    data = texts(served.programs.model, live.texts, 3)
    result = run_live(served, data, config)
    report = build_report(Subject.of(served, data.name), result, load_frac, None)
    return {"model_right": round(right, 4), **{key: report[key] for key in KEPT}}


def cases(size: Size) -> dict[str, Any]:
    """One case per load."""
    return {f"load {load:.0%}": partial(measure, size, load) for load in size.live.loads}
