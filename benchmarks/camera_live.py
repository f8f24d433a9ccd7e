"""Ten minutes of a fixed camera on the wall clock, at its own ten frames a second.

The stream of examples/train_camera.py: a scene again and again, each time in another light and
framing, which the ramps were not trained on. Both systems are served the same frames in turn, five
rounds of two minutes each; early answers start with what training left, and nothing settles first.

    python benchmarks/camera_live.py [CAMERA ...]

Cameras are workloads of ``benchmarks/traces.py``, and take 20 minutes each. Writes
results/camera_live.json, where those that were not asked for stay as they are.
"""

import json
from typing import Any

from _common import RESULTS, asked, machine, write_result
from _traces_streams import MissingError, there
from _traces_workloads import BACKBONES, CAMERAS, all_workloads

from apparate_jax.bench.live import LiveConfig, run_live
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.checkpoint import load_checkpoint
from apparate_jax.data import load_data
from apparate_jax.serve import prepare

KNOWN = tuple(f"{clip}-{backbone}" for clip in CAMERAS for backbone in BACKBONES)
USUAL = ("people-resnet-50",)
CONFIG = LiveConfig(
    rate_rps=10.0, arrivals="fixed", rounds=5, round_s=120.0, saturation_s=0.5, settle=0
)
LATENCIES = ("p25_ms", "p50_ms", "p95_ms", "p99_ms")
KEPT = (
    *("agreement", "answers_checked", "windows_below_constraint", "exit_rates", "tunings"),
    *("ramps_stopped", "overhead_frac"),
)


def measure(name: str) -> dict[str, Any]:
    """Serve a camera's frames.

    Raises:
        MissingError: Its checkpoint or its stream is not there.
    """
    work = all_workloads()[name]
    checkpoint = load_checkpoint(there(work.checkpoint, f"run benchmarks/traces.py {name}"))
    data = load_data(work.stream(), checkpoint.model)
    service = prepare(checkpoint)
    comparison = run_live(service, data, CONFIG)
    report = build_report(Subject.of(service, data.name), comparison, None, None)
    service.programs.close()
    systems = {
        system: {key: report[system][key] for key in LATENCIES}
        for system in ("vanilla", "apparate")
    }
    rounds = [
        {key: round(one["apparate"][key] / one["vanilla"][key], 4) for key in LATENCIES}
        for one in report["rounds"]
    ]
    return {
        "machine": machine(),
        "frames": len(data),
        "requests": report["requests"],
        **systems,
        "p50_ratio": round(systems["apparate"]["p50_ms"] / systems["vanilla"]["p50_ms"], 4),
        "p95_ratio": round(systems["apparate"]["p95_ms"] / systems["vanilla"]["p95_ms"], 4),
        "p50_saved_frac": report["compared"]["p50_saved_frac"],
        "rounds": rounds,
        **{key: report["apparate"][key] for key in KEPT},
    }


def main() -> None:
    """Measure what was asked for."""
    path = RESULTS / "camera_live.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["cameras"] if path.is_file() else {}
    for name in asked(KNOWN, "cameras", USUAL):
        try:
            row = kept[name] = measure(name)
        except MissingError as missing:
            print(f"{name}: skipped, {missing}")
            continue
        print(name, row["rounds"], row["agreement"], flush=True)
        settings = {
            "rate_rps": CONFIG.rate_rps,
            "rounds_of_each": CONFIG.rounds,
            "round_s": CONFIG.round_s,
        }
        write_result("camera_live", {**settings, "cameras": kept})


if __name__ == "__main__":
    main()
