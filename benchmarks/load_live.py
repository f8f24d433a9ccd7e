"""The load sweep on the live engine: early answers against the original, paired, at several loads.

Both systems take the same arrivals in turn, five rounds at each load; medians of the rounds' own
ratios. Throughput is measured at each load anew, with a queue that is never empty. Targets: at
least 0.98 x the original's throughput; p50, p95 and p99 at most x 1.02, x 1.05 from 60 % of the
capacity on. Writes results/load_live.json.
"""

import sys
from typing import Any

import numpy as np
from _common import write_result
from _demo import ROOT, RUN, demo_checkpoint

from apparate_jax.bench.live import LiveConfig, run_live
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.data import load_data
from apparate_jax.serve import Service, prepare

LOADS = (0.2, 0.5, 0.7, 0.9)
ROUNDS = 5
ROUND_S = 7.0
KEYS = ("p25_ms", "p50_ms", "p95_ms", "p99_ms", "throughput_rps")


def measure(service: Service, data: Any, load: float) -> dict[str, Any]:
    """Ratios of the rounds at one load, early answers over the original."""
    config = LiveConfig(load_frac=load, rounds=ROUNDS, round_s=ROUND_S, saturation_s=2.0)
    report = build_report(
        Subject.of(service, data.name), run_live(service, data, config), load, None
    )
    rows = report["rounds"]
    row: dict[str, Any] = {"load_frac": load, "rate_rps": report["rate_rps"]}
    for key in KEYS:
        ratios = [one["apparate"][key] / one["vanilla"][key] for one in rows]
        row[key.replace("_ms", "").replace("_rps", "")] = {
            "median": round(float(np.median(ratios)), 4),
            "rounds": [round(ratio, 4) for ratio in ratios],
        }
    row["agreement"] = report["apparate"]["agreement"]
    return row


def main() -> None:
    """Measure every load."""
    checkpoint = demo_checkpoint()
    sys.path.insert(0, str(ROOT / "examples"))
    import imdb

    stream = RUN / "stream.csv"
    imdb.write("stream", stream, limit=6000)
    data = load_data(stream, checkpoint.model)
    service = prepare(checkpoint)
    rows = []
    for load in LOADS:
        rows.append(measure(service, data, load))
        shown = {key: value["median"] for key, value in rows[-1].items() if isinstance(value, dict)}
        print(load, shown, rows[-1]["agreement"], flush=True)
    service.programs.close()
    write_result("load_live", {"rounds": ROUNDS, "round_s": ROUND_S, "loads": rows})


if __name__ == "__main__":
    main()
